"""The built page in Chromium, on a real `segany serve` with a real database and, where it says so, MobileSAM."""

from __future__ import annotations

import io
import json
import re
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.models_for_tests import SMALL_TINY_VIT, small_sam
from tests.server.browsing import IMAGES, POINT, Server, enter, export, masks, page, serve, wait_open
from tests.web_page_for_tests import OBJECTS, at, browser, drag, objects, wait, wait_saved

import segany
from segany import Client, Prompt
from segany.core.rle import decode_mask
from segany.models.model_file import save_model

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

__all__ = ["browser", "page", "serve"]


def test_clicks_become_the_masks_of_the_predictor_and_are_exported(
    serve: Callable[..., Server], page: Page, mobile_sam_path: Path, tmp_path: Path
) -> None:
    server = serve(IMAGES / "coffee.png", "--model", mobile_sam_path)
    enter(page, server, "coffee.png")
    wait(page, f"{POINT}.canPredict")
    page.get_by_role("button", name="Add labels").click()
    page.get_by_role("button", name="Add label", exact=True).click()
    page.get_by_label("Name", exact=True).fill("cup")
    page.get_by_role("button", name="Save labels").click()
    page.locator("dialog").wait_for(state="detached")

    page.mouse.move(*at(page, 300, 100))
    wait(page, f"{POINT}.shown.value !== null")
    page.mouse.move(5, 5)
    wait(page, f"{POINT}.shown.value === null")  # no stale preview
    page.mouse.click(*at(page, 300, 100))
    wait(page, f"{POINT}.prompt.value.isAnswered")
    page.keyboard.press("Tab")
    candidate = page.evaluate(f"{POINT}.candidate.value")
    [point] = page.evaluate(f"{POINT}.prompt.value.points.map(p => p.at)")
    page.keyboard.press("Enter")
    wait(page, f"{OBJECTS}.length === 1")
    wait_saved(page)

    predictor = segany.ImagePredictor(segany.load(mobile_sam_path, device="cpu"))
    prediction = predictor.predict(predictor.embed(IMAGES / "coffee.png"), Prompt(points_xy=[point]), masks="multi")
    with zipfile.ZipFile(export(page, tmp_path)) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".json")]
        coco = json.loads(archive.read(name))
    [annotation], [category] = coco["annotations"], coco["categories"]
    assert np.array_equal(decode_mask(annotation["segmentation"]), prediction.masks[0, candidate])
    assert category["name"] == "cup"
    before = masks(page)
    page.reload()
    wait_open(page)
    assert masks(page) == before


@pytest.mark.failing_calls
def test_a_killed_server_loses_nothing_and_doubles_nothing(serve: Callable[..., Server], page: Page) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    enter(page, server, "coffee.png")
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    wait_saved(page)
    page.mouse.move(*at(page, 300, 100))
    page.mouse.down()
    page.mouse.move(*at(page, 330, 120))
    server.stop(signal.SIGKILL)
    page.mouse.move(*at(page, 360, 140))
    page.mouse.up()
    page.keyboard.press("Escape")
    drag(page, (100, 250), (160, 290))
    page.get_by_text("Server not reached").wait_for()
    before = masks(page)
    server.start()
    wait_saved(page)
    page.reload()
    wait_open(page)
    assert masks(page) == before
    with Client(server.address) as client:
        [item] = client.items()
        assert sorted(state.id for state in client.item(item.id).objects) == [identity for identity, _ in before]


@pytest.mark.slow
@pytest.mark.failing_calls
def test_two_tabs_on_one_object_keep_both_versions(serve: Callable[..., Server], page: Page) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    enter(page, server, "coffee.png")
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    wait_saved(page)
    other = page.context.new_page()
    other.goto(page.url)
    wait_open(other)
    for tab, y in ((page, 200), (other, 300)):
        tab.bring_to_front()
        tab.evaluate(f"segany.editor.select([{OBJECTS}[0].id])")
        tab.keyboard.press("b")
        drag(tab, (100, y), (160, y + 20))
    first, second = objects(page), objects(other)
    other.get_by_role("heading", name="Two versions of one object").wait_for()
    other.get_by_role("button", name="Keep both").click()
    wait(other, f"{OBJECTS}.length === 2")
    wait_saved(other)
    page.reload()
    wait_open(page)
    assert sorted(area for _, area, _ in objects(page)) == sorted([first[0][1], second[0][1]])


@pytest.mark.slow
def test_strokes_on_a_large_rotated_photograph_survive_undo_and_reload(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    with Image.open(IMAGES / "coffee.png") as image:
        image.convert("RGB").resize((3000, 4000)).save(file, "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(file.getvalue())
    server = serve(tmp_path / "turned.jpg", "--model", "none")
    enter(page, server, "turned.jpg")
    assert page.evaluate("[segany.editor.document.value.width, segany.editor.document.value.height]") == [4000, 3000]
    page.evaluate("segany.editor.viewport.showBox([2000, 1490, 2090, 1550], 8)")
    page.keyboard.press("b")
    for i in range(50):
        x, y = 1995 + (i % 10) * 9, 1495 + i
        drag(page, (x, y), (x + 6, y + 3), steps=2)
    painted = masks(page)
    for _ in range(50):
        page.keyboard.press("Control+z")
    assert masks(page) == []
    for _ in range(50):
        page.keyboard.press("Control+Shift+Z")
    assert masks(page) == painted
    wait_saved(page)
    page.reload()
    wait_open(page)
    assert masks(page) == painted


@pytest.mark.slow
def test_the_keyboard_alone_leads_from_the_first_image_to_anexport(
    serve: Callable[..., Server], page: Page, mobile_sam_path: Path
) -> None:
    server = serve(IMAGES / "coffee.png", IMAGES / "chelsea.png", "--model", mobile_sam_path)
    page.goto(server.address)
    page.locator(".thumbnail").first.wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.thumbnail') !== null"):
            break
    page.keyboard.press("Enter")
    wait_open(page)
    wait(page, f"{POINT}.canPredict")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("a")
    wait(page, f"{POINT}.prompt.value.isAnswered")
    page.keyboard.press("Enter")
    wait(page, f"{OBJECTS}.length === 1")
    page.keyboard.press("Control+Enter")
    wait(page, "segany.editor.document.value?.item.name === 'coffee.png'")
    page.keyboard.press("g")
    page.get_by_role("button", name="Export").wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim() === 'Export'"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('dialog .primary')"):
            break
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name=re.compile("Download"))
    link.wait_for()
    link.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "coco.zip"


@pytest.mark.slow
def test_the_page_decodes_itself_where_the_server_is_slow(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    model = save_model(small_sam(SMALL_TINY_VIT), tmp_path / "small.safetensors")
    server = serve(IMAGES / "coffee.png", "--model", model)
    sent: list[str] = []

    def slow(socket: WebSocketRoute) -> None:
        far = socket.connect_to_server()

        def up(message: str | bytes) -> None:
            sent.append(json.loads(message)["type"])
            far.send(message)

        def down(message: str | bytes) -> None:
            time.sleep(0.1)
            socket.send(message)

        socket.on_message(up)
        far.on_message(down)

    page.route_web_socket(re.compile("/api/live"), slow)
    enter(page, server, "coffee.png")
    wait(page, f"{POINT}.canPredict")

    def click(x: int, y: int) -> None:
        page.mouse.click(*at(page, x, y))
        wait(page, f"{POINT}.prompt.value.isAnswered")

    def previews(count: int) -> int:
        """Predictions that the server is asked for meanwhile."""
        before = sent.count("predict")
        for step in range(count):
            page.mouse.move(*at(page, 100 + 8 * step, 100 + 3 * step))
            page.wait_for_timeout(300)
        wait(page, f"{POINT}.shown.value !== null")
        return sent.count("predict") - before

    assert previews(4) >= 3
    wait(page, "segany.model.value?.decoder", timeout=600)
    assert "want_decoder" in sent
    previews(2)  # the page fetches the decoder and the embedding
    page.wait_for_timeout(3000)
    assert previews(8) <= 2  # the server is asked now and then
    click(300, 100)
    click(200, 220)
    [points] = [page.evaluate(f"{POINT}.prompt.value.points.map(p => p.at)")]
    candidate = page.evaluate(f"{POINT}.prompt.value.shown.previous.candidate")
    page.keyboard.press("Enter")
    wait(page, f"{OBJECTS}.length === 1")
    wait_saved(page)

    predictor = segany.ImagePredictor(segany.load(model, device="cpu"))
    embedding = predictor.embed(IMAGES / "coffee.png")
    first = predictor.predict(embedding, Prompt(points_xy=points[:1]), masks="multi")
    logits = first.low_res_logits[0, candidate]
    wanted = predictor.predict(embedding, Prompt(points_xy=points, mask_logits=logits), masks="single").masks[0, 0]
    root = server.address.partition("/#")[0]
    [item] = page.request.get(f"{root}/api/items").json()["items"]
    [stored] = page.request.get(f"{root}/api/items/{item['id']}").json()["objects"]
    mask = decode_mask({"size": list(wanted.shape), "counts": stored["counts"]})
    assert np.array_equal(mask, wanted)
