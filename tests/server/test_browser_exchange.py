"""Import, export and automatic masks in the built page, on a real `segany serve`; and what axe says of its views."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.browsing import IMAGES, Server, add_label, enter, export, masks, open_menu, page, serve, wait_open
from tests.web_page_for_tests import AXE, OBJECTS, at, browser, drag, objects, wait, wait_saved

from segany import Client

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "page", "serve"]


def annotate(page: Page, server: Server) -> list[Any]:
    """Paint two labelled objects, one with a hole, on one image, and nothing on the other; return the masks."""
    enter(page, server, "coffee.png")
    add_label(page, "cup")
    add_label(page, "spoon")
    page.keyboard.press("b")
    for _ in range(6):
        page.keyboard.press("]")
    page.keyboard.press("1")
    for y in (100, 120, 140, 160):
        drag(page, (100, y), (240, y))
    page.keyboard.press("x")
    for _ in range(6):
        page.keyboard.press("[")
    drag(page, (150, 130), (180, 135))
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("2")
    drag(page, (350, 250), (500, 300))
    wait_saved(page)
    found = contents(page)
    assert len(found) == 2
    return found


def contents(page: Page) -> list[Any]:
    """Label and mask of each object."""
    return sorted(page.evaluate(f"{OBJECTS}.map(o => [o.labelId, [...o.mask.runs]])"))


@pytest.mark.parametrize(
    "name", ["COCO", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Label maps", "Project archive"))]
)
def test_what_was_exported_is_imported_into_another_project(
    serve: Callable[..., Server], page: Page, tmp_path: Path, name: str
) -> None:
    server = serve(IMAGES / "coffee.png", IMAGES / "chelsea.png", "--model", "none")
    before = annotate(page, server)
    with zipfile.ZipFile(export(page, tmp_path, name, images=True)) as archive:
        assert any(member.startswith(("images/", "blobs/")) for member in archive.namelist())
    other = serve("--model", "none", project="other")
    page.goto(other.address)
    page.get_by_text("Drop images here").wait_for()
    open_menu(page, "Import")
    page.get_by_label(name).check()
    page.get_by_label("Choose files").set_input_files(tmp_path / "export.zip")
    page.locator("dialog").get_by_role("button", name="Import", exact=True).click()
    page.get_by_text("2 objects in 2 images").wait_for()
    page.keyboard.press("Escape")
    page.locator(".thumbnail", has_text="chelsea.png").wait_for()
    page.locator(".thumbnail", has_text="coffee.png").click()
    wait_open(page)
    assert contents(page) == before
    assert page.get_by_role("button", name="spoon").first.is_visible()


def test_an_export_has_the_images_only_where_they_are_wanted(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    page.goto(server.address)
    for images in (False, True):
        with zipfile.ZipFile(export(page, tmp_path, "COCO", images=images)) as archive:
            assert ("images/coffee.png" in archive.namelist()) == images
    open_menu(page, "Export")
    page.get_by_label("Project archive").check()
    assert page.get_by_label("Include the image files").is_checked()
    assert page.get_by_label("Include the image files").is_disabled()


@pytest.mark.slow
@pytest.mark.failing_calls
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_in_any_view(serve: Callable[..., Server], page: Page, scheme: Any, tmp_path: Path) -> None:
    server = serve(IMAGES / "coffee.png", IMAGES / "chelsea.png", "--model", "none")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found: dict[str, list[Any]] = {}

    def check(view: str) -> None:
        page.evaluate(AXE.read_text())
        result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        violations = [
            (one["id"], [node["html"][:200] for node in one["nodes"]], one["nodes"][0]["failureSummary"])
            for one in result["violations"]
        ]
        if violations:
            found[view] = violations

    def close() -> None:
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")

    annotate(page, server)
    check("editor")
    page.keyboard.press("v")
    page.evaluate(f"segany.editor.select([{OBJECTS}[0].id])")
    check("selected object")
    for key in "qwbxpmce":
        page.keyboard.press(key)
        check(f"tool {key}")
    for view in ("Keyboard", "Settings", "Labels", "Export", "Import", "Activity"):
        open_menu(page, view)
        check(view)
        if view == "Export":
            page.get_by_label("YOLO segmentation").check()
            page.locator("dialog").get_by_role("button", name="Export", exact=True).click()
            page.get_by_role("link", name="Download").wait_for()
            check("report of an export")
        close()
    page.get_by_role("button", name="Menu").click()
    check("menu")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.locator(".thumbnail").first.wait_for()
    check("grid")
    page.get_by_label("Search names").fill("nothing")
    page.get_by_text("No image matches").wait_for()
    check("empty grid")
    page.get_by_label("Search names").fill("")
    page.locator(".thumbnail", has_text="chelsea.png").wait_for()
    page.context.clear_cookies()
    page.locator(".thumbnail", has_text="chelsea.png").click()
    page.get_by_role("button", name="Sign in").click()
    check("expired")
    close()
    check("image that cannot be opened")
    page.reload()
    page.get_by_label("Link or token").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    page.get_by_text("not valid").wait_for()
    check("locked")
    assert list(found) == [], found


@pytest.mark.slow
def test_everything_is_found_by_the_model_and_accepted(
    serve: Callable[..., Server], page: Page, mobile_sam_path: Path
) -> None:
    server = serve(IMAGES / "coffee.png", "--model", mobile_sam_path)
    enter(page, server, "coffee.png")
    wait(page, "segany.editor.point.canPredict")
    page.keyboard.press("e")
    page.get_by_role("button", name="Find everything").click()
    page.get_by_text("Finding masks").wait_for()
    tool = "segany.editor.everything"
    wait(page, f"({tool}.suggestions.value ?? []).length > 0", timeout=300)
    page.mouse.move(*at(page, 300, 100))
    wait(page, "segany.editor.hovered.value !== null")
    page.mouse.click(*at(page, 300, 100))
    assert len(objects(page)) == 1
    page.get_by_role("button", name="Accept shown").click()
    wait_saved(page)
    accepted = masks(page)
    assert len(accepted) > 5
    with Client(server.address) as client:
        [item] = client.items()
        states = client.item(item.id).objects
        proposals = client.http.get(f"/api/items/{item.id}/proposals").json()
    assert sorted(state.id for state in states) == [identity for identity, _ in accepted]
    assert {state.counts for state in states} <= {proposal["counts"] for proposal in proposals}
    assert {state.source for state in states} == {"auto"}
