"""Running servers, for tests: real ones, on a port of their own."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from segany.hub.model_ref import ModelRef
from segany.server.app import make_app
from segany.server.events import Events
from segany.server.model_host import ModelHost
from segany.server.running import Server
from segany.server.sessions import Sessions
from segany.server.state import ServerState
from segany.store import Store

HTML = "<!doctype html><title>segany</title>"


@dataclass
class Served:
    """A running server.

    Attributes:
        root: its address, without a slash.
        http: somebody who has entered, and sends the CSRF header.
    """

    root: str
    store: Store
    state: ServerState
    sessions: Sessions
    clients: contextlib.ExitStack

    def __post_init__(self) -> None:
        self.http = self.stranger()
        entered = self.http.post("/api/session", json={"token": self.sessions.new_token()})
        self.http.headers["X-Segany-CSRF"] = entered.json()["csrf"]

    @property
    def address(self) -> str:
        """What segany serve prints: with a token that was not used yet."""
        return f"{self.root}/#token={self.sessions.new_token()}"

    @property
    def host(self) -> str:
        return self.root.removeprefix("http://")

    def stranger(self) -> httpx.Client:
        """Somebody who has not entered."""
        return self.clients.enter_context(httpx.Client(base_url=self.root, timeout=60, trust_env=False))

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())


def make_page(folder: Path) -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(HTML)
    (folder / "assets" / "app-1a2b3c.js").write_text("export {};")
    (folder / "assets" / "secret.key").write_text("not a file of the page")
    return folder


@contextlib.contextmanager
def served(store: Store, page: Path, model: ModelRef | None = None, **settings: Any) -> Iterator[Served]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        events = Events()
        host = ModelHost(model, store.folder / "cache" / "embeddings", events.publish)
        state, sessions = ServerState(store, host, events, "ada"), Sessions(store)
        names = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        app = make_app(state, sessions, names, static=page, **settings)
        server = Server(app, lambda: None)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            with contextlib.ExitStack() as clients:
                running = Served(f"http://127.0.0.1:{port}", store, state, sessions, clients)
                yield running
        finally:
            server.should_exit = True
            thread.join()


def raw(server: Served, method: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
    """Send a request as it is given: no client cleans it up."""
    with contextlib.closing(http.client.HTTPConnection(server.host)) as connection:
        connection.putrequest(method, target, skip_host=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return value


def picture(width: int = 30, height: int = 20, seed: int = 0, mode: str = "RGB", **options: Any) -> bytes:
    """A PNG file, or another one with `format`."""
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode if mode == "RGBA" else None).save(file, **{"format": "PNG", **options})
    return file.getvalue()
