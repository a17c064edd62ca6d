"""The page of `segany serve` in Chromium: how tests open it and work with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("benchmarks", reason="the front end is in the repository only")

from benchmarks.setting import REPOSITORY
from benchmarks.web_page import open_browser, what_is_missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WEB = REPOSITORY / "web"
STATIC = REPOSITORY / "src" / "segany" / "server" / "static"
VITE = WEB / "node_modules" / "vite" / "bin" / "vite.js"
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"

CROWD = "item-61"
"""1,000 objects in 1800 x 1200 pixels."""

LARGE = "item-62"
"""4000 x 3000 pixels."""

HUGE = "item-63"
"""6000 x 4000 pixels: more than one texture."""

OBJECTS = "[...segany.editor.document.value.objects.value.values()]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    missing = what_is_missing()
    if not missing and not ((STATIC / "index.html").exists() and VITE.exists() and shutil.which("node")):
        missing = "The page is not built. Run: make web"
    if missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with open_browser() as browser:
        yield browser


@pytest.fixture
def address() -> Iterator[str]:
    """Of a mock server of its own, so that tests do not see each other's objects."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _served(port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _served(port: int) -> Iterator[None]:
    command = [
        "node",
        str(VITE),
        "preview",
        "--mode",
        "mock",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--strictPort",
    ]
    server = subprocess.Popen(command, cwd=WEB, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
                break
            time.sleep(0.1)
        else:
            pytest.fail("the mock server did not start")
        yield
    finally:
        server.terminate()
        server.wait()


def errors_of(page: Page, request: pytest.FixtureRequest) -> list[str]:
    """Errors of a page from now on: of its code, and in its console.

    The browser notes there each call that fails, as tests with the marker `failing_calls` make them do.
    """
    errors: list[str] = []
    fine = ("Failed to load resource", "WebSocket") if request.node.get_closest_marker("failing_calls") else ()

    def note(text: str) -> None:
        if not text.startswith(fine):
            errors.append(text)

    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: note(message.text) if message.type == "error" else None)
    return errors


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Signed in, at the grid. Fails on errors in the console."""
    with browser.new_context(viewport={"width": 1280, "height": 800}, base_url=address) as context:
        page = context.new_page()
        errors = errors_of(page, request)
        page.goto("/#token=mock")
        page.wait_for_selector(".thumbnail img")
        yield page
    assert errors == []


def wait(page: Page, condition: str, timeout: float = 40) -> None:
    """Playwright's own waiting evaluates text in the page, which the page's policy forbids."""
    end = time.monotonic() + timeout
    while not page.evaluate(condition):
        if time.monotonic() > end:
            pytest.fail(f"never true: {condition}")
        page.wait_for_timeout(30)


def open_item(page: Page, item: str = "item-1") -> None:
    page.goto(f"/#/items/{item}")
    wait(page, f"segany.editor.document.value?.id === '{item}' && !segany.editor.isOpening.value")
    wait(page, "Object.keys(segany.editor.surface.frameTimes).length > 0")


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image lies on the screen."""
    left, top = page.evaluate(f"segany.editor.viewport.toScreen([{x}, {y}])")
    box = page.locator(".overlay").bounding_box()
    assert box
    return box["x"] + left, box["y"] + top


def drag(page: Page, start: tuple[float, float], end: tuple[float, float], steps: int = 6) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *end), steps=steps)
    page.mouse.up()


def objects(page: Page) -> list[list[Any]]:
    """Id, area and label of each."""
    return sorted(page.evaluate(f"{OBJECTS}.map(o => [o.id, o.mask.area, o.labelId])"))


def wait_saved(page: Page) -> None:
    wait(page, "segany.outbox.value.status.value.state === 'saved'")


def post(page: Page, path: str, body: dict[str, Any]) -> None:
    page.request.post(path, data=body)
