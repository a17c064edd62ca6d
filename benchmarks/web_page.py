"""A page in headless Chromium with the front end of `web/` and a folder of files, driven from Python."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.setting import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WEB = REPOSITORY / "web"
BUNDLE = WEB / "dist" / "segany.js"
RUNTIME = WEB / "node_modules" / "onnxruntime-web"

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

PAGE = b"""<!doctype html>
<title>segany</title>
<script type="importmap">{"imports": {"onnxruntime-web/wasm": "/runtime/ort.wasm.min.mjs"}}</script>
<script type="module">
  import * as segany from "/dist/segany.js";
  window.segany = segany;
</script>
"""

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers without which a page has no threads."""


def what_is_missing() -> str | None:
    """Return what must be installed or built before a page can be opened, with instructions; None if nothing is."""
    sources = [path.stat().st_mtime for path in (WEB / "src").iterdir()]
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed. Run: pip install --group dev"
    if not BUNDLE.exists() or not RUNTIME.exists() or BUNDLE.stat().st_mtime < max(sources):
        return f"{WEB.name}/ is not built, or was built before it changed. Run: make browser"
    if _chromium() is None:
        return "Chromium is not installed. Run: make browser"
    return None


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Open headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=_chromium()) as browser:
        yield browser


@contextlib.contextmanager
def open_page(browser: Browser, folder: Path) -> Iterator[Page]:
    """Open a page in which `window.segany` is the front end and `folder` is served as /files/."""
    with _serving(folder) as address, browser.new_page() as page:
        page.goto(address)
        page.wait_for_function("window.segany", polling=50)  # frames are not drawn behind another page
        yield page


def _chromium() -> str | None:
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Serve the page and its files on this machine only. Yields the address."""
    roots = {"dist": BUNDLE.parent, "runtime": RUNTIME / "dist", "files": folder}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, roots=roots)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: object, roots: dict[str, Path]) -> None:
        self.roots = roots
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def translate_path(self, path: str) -> str:
        """`/ROOT/NAME` to a file of that root."""
        root, _, name = path.removeprefix("/").partition("/")
        self.directory = str(self.roots.get(root, "/nonexistent"))
        return super().translate_path(f"/{name}")

    def end_headers(self) -> None:
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass
