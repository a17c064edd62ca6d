"""A web server on localhost that fails in the ways that networks do."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What the server answers, and how it fails."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    honors_range: bool = True
    says_length: bool = True  # otherwise the end of the connection is the end of the file
    range_shift: int = 0  # answer a range that begins later than asked for
    breaks_after: int | None = None  # hang up after so many bytes of each answer
    breaks_left: int = 1_000_000  # how often it does
    waits_for: threading.Event | None = None


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    encoding: str | None  # that the client accepts
    sent: int = 0


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and request.path == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        request = Request(self.command, self.path, self.headers.get("Range"), self.headers.get("Accept-Encoding"))
        self.server.requests.append(request)
        page = self.server.pages.get(self.path, Page(status=404))
        if page.waits_for is not None:
            page.waits_for.wait(5)
        body, status = page.body, page.status
        if request.range and page.honors_range and status == 200:
            start = int(re.fullmatch(r"bytes=(\d+)-", request.range)[1]) + page.range_shift
            status = 206 if start < len(body) else 416
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:] if status == 206 else b""
        self.send_response(status)
        if page.says_length:
            self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", content_range)
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if page.breaks_after is not None and page.breaks_left > 0:
            page.breaks_left -= 1
            body = body[: page.breaks_after]
        if self.command == "GET":
            request.sent = len(body)  # before the client can have it all, and look
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
