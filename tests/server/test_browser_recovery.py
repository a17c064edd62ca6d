"""The built page in Chromium when the server goes away, comes back, or does not know the browser any more."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.live_for_tests import model_ref
from tests.server.browsing import IMAGES, POINT, Server, enter, masks, page, serve, wait_open
from tests.web_page_for_tests import OBJECTS, at, browser, drag, objects, wait, wait_saved

from segany import Client, ImagePredictor, Prompt
from segany.core.rle import decode_mask

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "page", "serve"]


@pytest.mark.failing_calls
def test_a_prompt_goes_on_after_a_restart_and_its_mask_is_exact(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    """The server has forgotten the predictions that the prompt refines."""
    ref = model_ref(tmp_path)
    server = serve(IMAGES / "coffee.png", "--model", ref.model)
    enter(page, server, "coffee.png")
    wait(page, f"{POINT}.canPredict")
    for x in (300, 200):
        page.mouse.click(*at(page, x, 100))
        wait(page, f"{POINT}.prompt.value.isAnswered")
    server.stop(signal.SIGKILL)
    wait(page, f"!{POINT}.canPredict")
    server.start()
    wait(page, f"{POINT}.canPredict")
    page.mouse.click(*at(page, 300, 250))
    wait(page, f"{POINT}.prompt.value.isAnswered")
    steps = page.evaluate(
        f"(() => {{ const p = {POINT}.prompt.value.shown; return [p, p.previous, p.previous.previous]"
        ".reverse().map((s) => [s.prompt.points, s.candidate, s.multimask]); })()"
    )
    server.stop(signal.SIGKILL)
    wait(page, f"!{POINT}.canPredict")
    page.keyboard.press("Enter")
    wait(page, f"{OBJECTS}.length === 1")
    server.start()
    wait_saved(page)
    predictor = ImagePredictor(ref.load())
    embedding, logits = predictor.embed(IMAGES / "coffee.png"), None
    for points, candidate, is_multi in steps:
        prompt = Prompt(points_xy=points, labels=[1] * len(points), mask_logits=logits)
        prediction = predictor.predict(embedding, prompt, masks="multi" if is_multi else "single")
        logits = prediction.low_res_logits[0, candidate]
    with Client(server.address) as client:
        [item] = client.items()
        [state] = client.item(item.id).objects
    mask = decode_mask({"size": [item.height, item.width], "counts": state.counts})
    assert np.array_equal(mask, prediction.masks[0, steps[-1][1]])


@pytest.mark.slow
@pytest.mark.failing_calls
def test_a_page_that_is_open_goes_on_after_a_restart(serve: Callable[..., Server], page: Page) -> None:
    """Its cookie is valid still; the link that it came by is not."""
    server = serve(IMAGES / "coffee.png", "--model", "none")
    used = server.address
    page.goto(used)
    page.locator(".thumbnail", has_text="coffee.png").click()
    wait_open(page)
    server.stop(signal.SIGKILL)
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    page.get_by_text("Server not reached, 1 change kept here").wait_for()
    server.start()
    wait_saved(page)
    drag(page, (100, 250), (160, 290))
    wait_saved(page)
    before = masks(page)
    with Client(server.address) as client:
        [item] = client.items()
        assert len(client.item(item.id).objects) == len(before)
    page.goto("about:blank")
    page.goto(used)
    page.locator(".thumbnail", has_text="coffee.png").click()
    wait_open(page)
    assert masks(page) == before


@pytest.mark.failing_calls
def test_a_page_without_a_session_says_how_to_get_in_again_and_keeps_the_work(
    serve: Callable[..., Server], page: Page
) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    enter(page, server, "coffee.png")
    page.context.clear_cookies()
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    page.keyboard.press("Escape")
    drag(page, (100, 250), (160, 290))
    page.get_by_text("Session expired").wait_for()
    before = objects(page)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Link or token").fill("http://127.0.0.1/#token=wrong")
    page.get_by_role("button", name="Enter").click()
    page.get_by_text("This token is not valid").wait_for()
    server.stop(signal.SIGKILL)
    server.start()  # prints a new link
    page.get_by_label("Link or token").fill(server.address)
    page.get_by_role("button", name="Enter").click()
    wait_saved(page)
    assert objects(page) == before
    page.get_by_role("dialog").wait_for(state="detached")
    page.keyboard.press("g")
    page.locator(".thumbnail").wait_for()
    page.context.clear_cookies()
    page.get_by_label("Search names").fill("cof")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Link or token").fill(server.address)
    page.keyboard.press("Enter")
    page.locator(".thumbnail", has_text="coffee.png").wait_for()
    with Client(server.address) as client:
        [item] = client.items()
        assert sorted(state.id for state in client.item(item.id).objects) == sorted(one[0] for one in before)


@pytest.mark.slow
@pytest.mark.failing_calls
def test_a_link_that_is_opened_in_another_tab_or_in_this_one_lets_the_page_go_on(
    serve: Callable[..., Server], page: Page
) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    enter(page, server, "coffee.png")
    page.keyboard.press("b")
    for y, is_same_tab in ((100, False), (250, True)):
        page.context.clear_cookies()
        drag(page, (100, y), (160, y + 40))
        page.get_by_text("Session expired").wait_for()
        before = objects(page)
        link = server.address
        if is_same_tab:
            page.evaluate(f"location.href = '{link}'")
        else:
            other = page.context.new_page()
            other.goto(link)
            other.locator(".thumbnail").wait_for()
            other.close()
            page.evaluate("dispatchEvent(new Event('focus'))")
        wait_saved(page)
    with Client(server.address) as client:
        [item] = client.items()
        assert sorted(state.id for state in client.item(item.id).objects) == sorted(one[0] for one in before)


@pytest.mark.slow
@pytest.mark.failing_calls
def test_another_project_at_the_same_address_does_not_get_the_work(serve: Callable[..., Server], page: Page) -> None:
    server = serve(IMAGES / "coffee.png", "--model", "none")
    enter(page, server, "coffee.png")
    server.stop(signal.SIGKILL)
    page.keyboard.press("b")
    drag(page, (100, 100), (160, 140))
    page.get_by_text("Server not reached").wait_for()
    other = serve(IMAGES / "chelsea.png", "--model", "none", project="other", port=server.port)
    page.get_by_text("Session expired").wait_for()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Link or token").fill(other.address)
    page.get_by_role("button", name="Enter").click()
    page.locator(".thumbnail", has_text="chelsea.png").wait_for()
    assert page.locator(".thumbnail", has_text="coffee.png").count() == 0
    page.get_by_text("Saved").wait_for()
    other.stop()
    server.start()
    page.goto("about:blank")
    enter(page, server, "coffee.png")
    wait(page, f"{OBJECTS}.length === 1")
    wait_saved(page)
