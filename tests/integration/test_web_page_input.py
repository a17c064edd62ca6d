"""What reaches the page of `segany serve` from outside, in Chromium: files, fingers, large images, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.web_page_for_tests import (
    HUGE,
    OBJECTS,
    address,
    at,
    browser,
    drag,
    objects,
    open_item,
    page,
    post,
    wait,
    wait_saved,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

__all__ = ["address", "browser", "page"]

TRANSFER = """
const transfer = new DataTransfer();
for (const [name, type] of files) transfer.items.add(new File(["pixels"], name, { type }));
"""

PIXELS = "(segany.editor.surface.draw(), document.querySelector('.canvas canvas').toDataURL())"


def test_pasted_images_are_added(page: Page) -> None:
    paste = f"(files) => {{ {TRANSFER} dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: transfer }})); }}"
    page.evaluate(paste, [["notes.txt", "text/plain"]])
    page.evaluate(paste, [["pasted.png", "image/png"]])
    page.locator(".notice", has_text="1 image added").wait_for()
    page.get_by_label("Search names").fill("pasted.png")
    page.locator(".thumbnail", has_text="pasted.png").wait_for()


def test_dropped_files_are_added_and_what_is_no_image_is_named(page: Page) -> None:
    send = f"""([kind, files]) => {{
        {TRANSFER}
        const event = new DragEvent(kind, {{ dataTransfer: transfer, bubbles: true, cancelable: true }});
        return !document.querySelector(".page > *").dispatchEvent(event);
    }}"""
    files = [["cells.jpg", "image/jpeg"], ["more.png", "image/png"], ["notes.txt", "text/plain"]]
    assert page.evaluate(send, ["dragover", files]), "otherwise the browser leaves the page for the file"
    page.get_by_text("Drop to add the images").wait_for()
    assert page.evaluate(send, ["drop", files])
    page.locator(".notice", has_text="2 images added").wait_for()
    page.locator(".notice", has_text="notes.txt").wait_for()
    assert page.locator(".drop-hint").count() == 0


def test_many_files_are_sent_in_parts_and_the_project_is_asked_for_as_often(page: Page) -> None:
    sent: list[int] = []
    asked: list[str] = []

    def slowly(route: Route) -> None:
        if route.request.method == "POST":
            sent.append((route.request.post_data or "").count("filename="))
            page.wait_for_timeout(400)
        route.continue_()

    page.route("**/api/items", slowly)
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/api/project") else None)
    paste = f"(files) => {{ {TRANSFER} dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: transfer }})); }}"
    page.evaluate(paste, [[f"{number}.png", "image/png"] for number in range(120)])
    page.get_by_text("Uploading 50 of 120 files").wait_for()
    page.locator(".notice", has_text="120 images added").wait_for()
    assert sent == [50, 50, 20]
    page.get_by_text("183 images").wait_for()
    page.wait_for_timeout(200)
    assert len(asked) == len(sent)
    assert page.get_by_text("Uploading").count() == 0


def test_an_import_is_uploaded_in_parts(page: Page) -> None:
    page.get_by_role("button", name="Menu").click()
    page.locator(".menu-item", has_text="Import").click()
    files = [{"name": f"{n}.json", "mimeType": "application/json", "buffer": b"{}"} for n in range(60)]
    page.get_by_label("Choose files").set_input_files(files)  # type: ignore[arg-type]
    page.locator("dialog").get_by_role("button", name="Import", exact=True).click()
    page.get_by_text("41 objects in 60 images").wait_for()


def test_two_fingers_zoom_and_move(page: Page) -> None:
    open_item(page)
    page.keyboard.press("b")
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    (x, y), zoom = at(page, 250, 250), page.evaluate("segany.editor.viewport.view.value.zoom")
    touch("touchStart", (x - 50, y))
    touch("touchStart", (x - 50, y), (x + 50, y))
    for step in range(1, 6):
        touch("touchMove", (x - 50 - 10 * step, y), (x + 50 + 10 * step, y))
    for step in range(1, 6):
        touch("touchMove", (x - 100 + 8 * step, y + 4 * step), (x + 100 + 8 * step, y + 4 * step))
    touch("touchEnd")
    assert page.evaluate("segany.editor.viewport.view.value.zoom") == pytest.approx(2 * zoom, rel=0.02)
    assert at(page, 250, 250) == pytest.approx((x + 40, y + 20), abs=2)
    assert objects(page) == [], "two fingers do not paint"
    touch("touchStart", at(page, 200, 200))
    touch("touchMove", at(page, 240, 220))
    touch("touchEnd")
    assert len(objects(page)) == 1, "one finger does"


def test_an_image_of_several_textures_is_painted_across_their_border(page: Page) -> None:
    open_item(page, HUGE)
    wait(page, f"({PIXELS}).length > 100000")
    page.evaluate("segany.editor.viewport.showBox([4046, 1900, 4146, 1970], 8)")
    page.keyboard.press("b")
    drag(page, (4060, 1930), (4130, 1940), steps=4)
    [[_, area, _]] = objects(page)
    box = page.evaluate(f"{OBJECTS}[0].mask.box")
    assert box[0] < 4060
    assert box[2] > 4130
    # The brush is as wide on both sides of the border.
    columns = page.evaluate(
        f"""(() => {{
            const {{ runs, height }} = {OBJECTS}[0].mask;
            const widths = {{}};
            let position = 0;
            runs.forEach((run, i) => {{
                if (i % 2) widths[Math.floor(position / height)] = (widths[Math.floor(position / height)] ?? 0) + run;
                position += run;
            }});
            return [4090, 4094, 4095, 4096, 4097, 4101].map((x) => widths[x]);
        }})()"""
    )
    assert max(columns) - min(columns) <= 2
    wait_saved(page)
    page.reload()
    wait(page, "globalThis.segany?.editor.document.value?.objects.value.size === 1")
    assert objects(page)[0][1] == area


def test_the_image_returns_after_the_graphics_context_was_lost(page: Page) -> None:
    open_item(page)
    page.keyboard.press("b")
    drag(page, (100, 100), (200, 140))
    page.keyboard.press("Escape")
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    before = page.evaluate(PIXELS)
    page.evaluate(
        "const gl = document.querySelector('.canvas canvas').getContext('webgl2');"
        "globalThis.lost = gl.getExtension('WEBGL_lose_context');"
        "lost.loseContext()"
    )
    page.get_by_text("The image will be back in a moment").wait_for()
    page.evaluate("lost.restoreContext()")
    page.get_by_text("The image will be back in a moment").wait_for(state="detached")
    wait(page, "segany.editor.surface.isLost.value === false")
    assert page.evaluate(PIXELS) == before
    drag(page, (100, 200), (200, 240))
    wait_saved(page)
    assert objects(page)[0][1] > 0


@pytest.mark.failing_calls
def test_work_is_kept_when_the_session_expires_in_the_middle_of_it(page: Page) -> None:
    open_item(page)
    post(page, "/mock/expire", {})
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    page.get_by_text("Session expired").wait_for()
    drag(page, (100, 200), (160, 240))
    before: list[Any] = objects(page)
    page.reload()
    page.get_by_label("Link or token").fill("mock")
    page.get_by_role("button", name="Enter").click()
    wait(page, f"globalThis.segany?.editor.document.value && {OBJECTS}.length === {len(before)}")
    assert objects(page) == before
    wait_saved(page)
    revisions = [revision["change"]["revision"] for revision in page.request.get("/mock/revisions").json()]
    assert len(revisions) == len(set(revisions)) == 2


def test_news_of_the_model_outlive_an_older_answer(page: Page) -> None:
    """An answer with the whole project may have been made before the model was ready, and arrive afterwards."""
    open_item(page)
    older = page.request.get("/api/project").json()
    older["model"]["state"] = "loading"
    post(page, "/mock/model", {"state": "ready"})
    page.route("**/api/project", lambda route: route.fulfill(json=older))
    with page.expect_response("**/api/project"):
        page.goto("/#/")
    page.wait_for_selector(".thumbnail img")
    open_item(page)
    assert page.evaluate("segany.editor.point.canPredict")


def test_news_of_the_end_of_a_job_outlive_the_answer_to_its_start(page: Page) -> None:
    def late(route: Route) -> None:
        answer = route.fetch()
        while page.request.get("/api/jobs").json()[0]["state"] != "done":
            page.wait_for_timeout(50)
        page.wait_for_timeout(200)  # for the news, which the mock server sends at the same moment
        route.fulfill(response=answer)

    page.route("**/api/exports", late)
    page.get_by_role("button", name="Menu").click()
    page.locator(".menu-item", has_text="Export").click()
    page.locator("dialog").get_by_role("button", name="Export", exact=True).click()
    page.get_by_role("link", name="Download").wait_for()
