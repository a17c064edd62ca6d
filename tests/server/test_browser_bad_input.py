"""The built page in Chromium, on a real `segany serve`, where something is missing: images, weights, the graphics."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.live_for_tests import model_ref
from tests.server.browsing import IMAGES, Server, enter, page, serve
from tests.web_page_for_tests import at, browser, drag, objects, wait_saved

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser", "page", "serve"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    shutil.copy(IMAGES / "coffee.png", tmp_path / "photos")
    return tmp_path / "photos"


@pytest.mark.failing_calls
def test_moved_images_are_told_of_and_found_again(
    serve: Callable[..., Server], browser: Browser, page: Page, photos: Path, tmp_path: Path
) -> None:
    ref = model_ref(tmp_path)
    server = serve(photos, "--model", ref.model)
    enter(page, server, "coffee.png")
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    wait_saved(page)
    painted = objects(page)
    moved = photos.rename(tmp_path / "moved")
    server.stop()
    server = serve("--model", ref.model, port=server.port)
    with browser.new_context() as other:  # whose cache does not have the image
        fresh = other.new_page()
        fresh.goto(server.address)
        fresh.locator(".thumbnail").click()
        why = "start segany serve with the folder that it is in now"
        fresh.locator(".blocker", has_text=why).wait_for()
        fresh.locator(".model-note", has_text=why).wait_for()
    server.stop()
    again = serve(moved, "--model", ref.model, port=server.port)
    assert "1 images found again where they are now.\n" in again.lines
    enter(page, again, "coffee.png")
    assert page.locator(".blocker").count() == 0
    assert objects(page) == painted


@pytest.mark.slow
@pytest.mark.failing_calls
def test_without_weights_the_page_says_so_and_brush_and_polygon_work(
    serve: Callable[..., Server], page: Page, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGANY_OFFLINE", "1")
    server = serve(photos)
    enter(page, server, "coffee.png")
    page.get_by_text("The model mobile_sam is not available").wait_for(timeout=60_000)
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    for x, y in ((300, 100), (400, 100), (400, 200)):
        page.mouse.click(*at(page, x, y))
    page.keyboard.press("Enter")
    assert len(objects(page)) == 2
    wait_saved(page)
