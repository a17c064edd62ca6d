"""Starting and stopping the server."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from segany.core.errors import CanceledError, ConfigError, SeganyError, StoreError
from segany.core.progress import Cancellation
from segany.hub.model_ref import ModelRef
from segany.server.answers import ITEMS_CHANGED
from segany.server.app import make_app
from segany.server.embeddings import MAX_DISK_BYTES
from segany.server.events import Events
from segany.server.intake import NamedFile, add_files
from segany.server.model_host import ModelHost
from segany.server.page_decoder import PageDecoder
from segany.server.pages import STATIC, check_page
from segany.server.security import Limits
from segany.server.sessions import Sessions
from segany.server.state import ServerState
from segany.server.work import KINDS, JobMaker
from segany.store import Store

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"

DEFAULT_PORT = 8765
"""Always the same: what a page has not saved yet is kept by the browser for this port."""

FIRST_IMAGES_SECONDS = 2.0
"""How long the address waits for images, so that a page of a few begins with all of them."""

GOODBYE_SECONDS = 5


@dataclass(frozen=True)
class ServeConfig:
    """How to serve a project.

    Attributes:
        host, port: where; only this machine. Port 0 takes a free one.
        files: images to add.
        copy: whether they are copied into the project.
        model: answers prompts; None for none.
        max_cache_bytes: size of the embeddings that are kept on disk.
        author: who annotates.
        opens_browser: whether to open the page.
        static: folder of the built page.
        limits: of bodies of requests.
        kinds: the kinds of jobs that are done.
    """

    host: str = ADDRESS
    port: int = DEFAULT_PORT
    files: Sequence[NamedFile] = ()
    copy: bool = False
    model: ModelRef | None = None
    max_cache_bytes: int = MAX_DISK_BYTES
    author: str = "you"
    opens_browser: bool = True
    static: Path = STATIC
    limits: Limits = field(default_factory=Limits)
    kinds: Mapping[str, JobMaker] = field(default_factory=lambda: KINDS)

    def check(self) -> None:
        """Find out what would keep the server from starting, before a project is made for it.

        Raises:
            ConfigError: the address is not this machine.
            StoreError: the page is not built, or the port is in use.
        """
        check_page(self.static)
        _bound(self.host, self.port).close()


def serve(store: Store, config: ServeConfig, say: Callable[[str], None] = print) -> None:
    """Serve an open project until Ctrl-C or SIGTERM.

    Args:
        store: opened exclusively.
        config: how.
        say: prints a line for the person.

    Raises:
        StoreError: the page is not built, or the port is in use.
        ConfigError: the address is not this machine.
    """
    check_page(config.static)
    with _bound(config.host, config.port) as listener:
        port = listener.getsockname()[1]
        root = f"http://{ADDRESS}:{port}"

        def address() -> str:
            return f"{root}/#token={sessions.new_token()}"

        sessions = Sessions(store, on_used=lambda: say(f"For another browser: {address()}"))
        events = Events()
        cache = store.folder / "cache"
        model_host = ModelHost(
            config.model,
            cache / "embeddings",
            events.publish,
            max_disk_bytes=config.max_cache_bytes,
            page_decoder=PageDecoder(cache / "decoders"),
        )
        state = ServerState(store, model_host, events, config.author)
        hosts = frozenset(f"{name}:{port}" for name in (ADDRESS, "localhost"))
        app = make_app(state, sessions, hosts, static=config.static, limits=config.limits, kinds=config.kinds)
        intake = _Intake(state, config, say)
        server = Server(app, lambda: _welcome(intake, address(), config, say))
        intake.start()
        try:
            server.run([listener])
        except KeyboardInterrupt:  # the usual end; uvicorn has stopped, and raises the signal again
            pass
        finally:
            intake.stop()
        say("Stopped. Everything that the page shows as saved is in the project.")


def _welcome(intake: _Intake, address: str, config: ServeConfig, say: Callable[[str], None]) -> None:
    intake.wait(FIRST_IMAGES_SECONDS)
    say(f"Open in a browser: {address}")
    say("Stop with Ctrl-C.")
    if config.opens_browser:
        webbrowser.open(address)


class Server(uvicorn.Server):
    """Calls a function, in a thread, as soon as requests are answered."""

    def __init__(self, app: ASGIApp, on_started: Callable[[], None]) -> None:
        """Prepare; `run` with a bound socket serves."""
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
                lifespan="on", ws_max_size=4 << 20, timeout_graceful_shutdown=GOODBYE_SECONDS,
            )
        )  # fmt: skip
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            threading.Thread(target=self._on_started, name="welcome", daemon=True).start()


class _Intake:
    """Adds images in a thread, while the page is open already."""

    def __init__(self, state: ServerState, config: ServeConfig, say: Callable[[str], None]) -> None:
        self._state, self._config, self._say = state, config, say
        self._cancellation = Cancellation()
        self._thread = threading.Thread(target=self._run, name="intake")
        self._added = self._found = self._skipped = 0

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def stop(self) -> None:
        self._cancellation.cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            add_files(
                self._state.store, self._config.files, copy=self._config.copy, on_skipped=self._skip,
                on_added=self._add, on_found=self._find, cancellation=self._cancellation,
            )  # fmt: skip
        except CanceledError:
            self._say(f"Stopped after {self._added:,} new images. The same command adds the others.")
            return
        except SeganyError as error:
            self._say(f"error: {error}")
        if self._found:
            self._say(f"{self._found:,} images found again where they are now.")
        if self._added or self._skipped:
            skipped = f", {self._skipped:,} skipped" if self._skipped else ""
            self._say(f"{self._added:,} images added{skipped}.")

    def _skip(self, name: str, message: str) -> None:
        self._skipped += 1
        self._say(_printable(f"skipped {name}: {message}"))

    def _find(self, count: int) -> None:
        self._found += count
        self._state.events.publish(ITEMS_CHANGED)

    def _add(self, count: int) -> None:
        self._added += count
        if count:
            self._state.events.publish(ITEMS_CHANGED)


def _printable(text: str) -> str:
    """Escape control characters, which could tell the terminal to do something."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _bound(host: str, port: int) -> socket.socket:
    if host != ADDRESS:
        raise ConfigError(
            f"The address {host!r} is refused: there are no accounts yet, and anyone who reaches the server could use "
            f"it. It listens at {ADDRESS} only; from another machine, use a tunnel: ssh -L {port}:{ADDRESS}:{port} HOST"
        )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StoreError(
            f"Port {port} cannot be used: {error.strerror}. Stop the other server, or choose another one with --port; "
            "--port 0 takes a free one."
        ) from error
    return listener
