"""The built page in Chromium, on a real `segany serve`: how tests start both and work with them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.serving import until
from tests.web_page_for_tests import OBJECTS, errors_of, wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parents[2] / "examples" / "images"

POINT = "segany.editor.point"


class Server:
    """`segany serve` as a process, on one port for as long as the test runs."""

    def __init__(self, folder: Path, *arguments: object, port: int = 0) -> None:
        self._command = [
            sys.executable, "-c", "from segany.cli import main; main()", "serve", *map(str, arguments),
            "--project", str(folder), "--no-browser",
        ]  # fmt: skip
        self.port = port
        self.start()

    def start(self) -> None:
        """Start, or start again at the same address."""
        self.process = subprocess.Popen(
            [*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )  # fmt: skip
        self.lines: list[str] = []
        self._taken = 0
        self._reader = threading.Thread(target=self._read, args=(self.process, self.lines))
        self._reader.start()
        until(lambda: self._links() or self.process.poll() is not None, 60)
        assert self._links(), "".join(self.lines)
        self.port = int(self._links()[-1].split(":")[2].partition("/")[0])

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.append(line)

    def _links(self) -> list[str]:
        return re.findall(r"http://127\.0\.0\.1:\d+/#token=\S+", "".join(self.lines))

    @property
    def address(self) -> str:
        """A link that was not asked for before: the server prints another one when the last was used."""
        self._taken += 1
        until(lambda: len(self._links()) >= self._taken)
        return self._links()[self._taken - 1]

    def stop(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*arguments: object, project: str = "project", port: int = 0) -> Server:
        started.append(Server(tmp_path / project, *arguments, port=port))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Fails on errors in the console."""
    with browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True) as context:
        page = context.new_page()
        errors = errors_of(page, request)
        yield page
    assert errors == []


def enter(page: Page, server: Server, name: str) -> None:
    """Enter with a link, and open an image."""
    page.goto(server.address)
    page.locator(".thumbnail", has_text=name).click()
    wait_open(page)


def wait_open(page: Page) -> None:
    wait(page, "globalThis.segany?.editor.document.value && !segany.editor.isOpening.value")
    wait(page, "Object.keys(segany.editor.surface.frameTimes).length > 0")


def masks(page: Page) -> list[Any]:
    return sorted(page.evaluate(f"{OBJECTS}.map(o => [o.id, [...o.mask.runs]])"))


def open_menu(page: Page, entry: str) -> None:
    """Open a dialog by the menu."""
    page.get_by_role("button", name="Menu").click()
    page.locator(".menu-item", has_text=entry).click()
    page.wait_for_selector("dialog[open]")


def add_label(page: Page, name: str) -> None:
    """Make a label, which has the next number as its key."""
    open_menu(page, "Labels")
    page.get_by_role("button", name="Add label", exact=True).click()
    page.get_by_label("Name", exact=True).last.fill(name)
    page.get_by_role("button", name="Save labels").click()
    page.locator("dialog").wait_for(state="detached")


def export(page: Page, folder: Path, format: str = "COCO", *, images: bool = False) -> Path:  # noqa: A002
    """Export the project, as a person does, and return the path of the file."""
    open_menu(page, "Export")
    page.get_by_label(format, exact=False).check()
    if page.get_by_label("Include the image files").is_enabled():
        page.get_by_label("Include the image files").set_checked(images)
    page.locator("dialog").get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download")).click()
    download.value.save_as(folder / "export.zip")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    return folder / "export.zip"
