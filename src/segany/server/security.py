"""What every request must fulfil before the application sees it, and the headers of every answer.

Any web page that a person visits can send requests to a server on their machine. Therefore, for HTTP and WebSocket:

- `Host` must be this server's address, or a page whose name was made to point here (DNS rebinding) could read answers.
- `Origin` must be this server's where a browser sends it, and `Sec-Fetch-Site` must not name another site.
- Everything below /api but entering needs the cookie of a session; what may change something also needs a header that
  only the page of that session knows.

There are no headers of CORS. Bodies are bounded.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segany.server.sessions import Sessions

CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

CSRF_HEADER = "X-Segany-CSRF"

SAFE_METHODS = ("GET", "HEAD")

ENTRANCE = "/api/session"


@dataclass(frozen=True)
class Limits:
    """Sizes of request bodies.

    Attributes:
        json: bytes of a body of JSON, or of any other kind but a form with files.
        upload: bytes of a form with files.
    """

    json: int = 64 << 20
    upload: int = 4 << 30


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """A request is not let through."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Security:
    """The ASGI middleware of all of this."""

    def __init__(self, app: ASGIApp, sessions: Sessions, hosts: frozenset[str], limits: Limits | None = None) -> None:
        """Guard an application.

        Args:
            app: the application.
            sessions: who may use it.
            hosts: what `Host` may be, with the port.
            limits: of bodies.
        """
        self.app, self.sessions, self.hosts, self.limits = app, sessions, hosts, limits or Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = send if scope["type"] == "websocket" else _with_headers(send)
        try:
            self._check(scope)
            most = self._most_bytes(scope)
        except Refusal as refusal:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                response = JSONResponse({"message": refusal.message}, refusal.status, {"Connection": "close"})
                await response(scope, receive, answer)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await _Bounded(self.app, most)(scope, receive, answer)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise Refusal(403, "This server answers only at the address that segany serve printed.")
        path, is_socket = scope["path"], scope["type"] == "websocket"
        is_api = path == "/api" or path.startswith("/api/")
        self._check_origin(headers, hosts[0].lower(), is_api=is_api, is_socket=is_socket)
        if not is_socket and (not is_api or (path == ENTRANCE and scope["method"] == "POST")):
            return
        session = self.sessions.session_of("; ".join(headers.getlist("cookie")))
        if session is None:
            raise Refusal(401, "There is no session, or it has ended. Open the address that segany serve printed.")
        scope.setdefault("state", {})["session"] = session
        if not is_socket and scope["method"] not in SAFE_METHODS:
            given = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, self.sessions.csrf(session).encode()):
                raise Refusal(403, f"The header {CSRF_HEADER} is missing or of another session. Load the page again.")

    def _check_origin(self, headers: Headers, host: str, *, is_api: bool, is_socket: bool) -> None:
        origins = headers.getlist("origin")
        if any(origin.lower() != f"http://{host}" for origin in origins) or (is_socket and len(origins) != 1):
            raise Refusal(403, "Other web pages may not use this server.")
        if is_api and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "Other web pages may not use this server.")

    def _most_bytes(self, scope: Scope) -> int:
        headers = Headers(scope=scope)
        is_upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = self.limits.upload if is_upload else self.limits.json
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > most:
            raise _too_large(most)
        return most


class _Bounded:
    """Ends a request whose body has more bytes than allowed, also where it does not say so before."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, is_started, is_over = 0, False, False

        async def bounded() -> Message:
            nonlocal size, is_over
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most:
                is_over = True
                raise _too_large(self.most)
            return message

        async def sent(message: Message) -> None:
            nonlocal is_started
            if not is_over or is_started:
                is_started = True
                await send(message)

        try:
            await self.app(scope, bounded, sent)
        except Refusal:
            if not is_over:
                raise
        if is_over and not is_started:
            refusal = _too_large(self.most)
            await JSONResponse({"message": refusal.message}, refusal.status, {"Connection": "close"})(
                scope, receive, send
            )


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"The request is too large: at most {most >> 20:,} MB at a time.")


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer
