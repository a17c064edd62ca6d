"""Chromium decodes what the server sends to exactly the pixels that the model sees."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.server.serving import Served
from tests.server.test_pictures import AS_STORED, REWRITTEN, added, encoded

from segany.imaging.image import read_image

PHOTO = Path(__file__).parents[2] / "examples" / "images" / "coffee.png"

DECODE = """async (url) => {
  const bitmap = await createImageBitmap(await (await fetch(url)).blob(), { premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [bitmap.height, bitmap.width, btoa(text)];
}"""


def photos() -> dict[str, bytes]:
    """What cameras and programs write, beside what the other tests have."""
    photo = Image.open(PHOTO).convert("RGB")
    made = {f"{index}.jpg": encoded(photo, format="JPEG", subsampling=index) for index in range(3)}
    odd = photo.crop((0, 0, 333, 211))
    return {
        **made,
        "progressive.jpg": encoded(photo, format="JPEG", quality=75, progressive=True),
        "odd.jpg": encoded(odd, format="JPEG"),
        "lossy.webp": encoded(photo, format="WEBP", quality=80),
        "a.bmp": encoded(photo, format="BMP"),
        "palette.png": encoded(photo.quantize(32), format="PNG"),
        **{f"rewritten {name}": make() for name, make in REWRITTEN.items()},
        **{f"as stored {name}": make() for name, (make, _) in AS_STORED.items()},
    }


@pytest.fixture
def browser_page(server: Served) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed: make browser")
        pytest.skip("needs Chromium: make browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context()
        name, value = next(iter(server.http.cookies.items()))
        context.add_cookies([{"name": name, "value": value, "url": server.root}])
        page = context.new_page()
        page.goto(server.root)
        yield page
        browser.close()


def test_browser_shows_the_pixels_of_the_model(server: Served, browser_page: Any) -> None:
    for name, data in photos().items():
        item = added(server, name, data)
        height, width, text = browser_page.evaluate(DECODE, f"/api/items/{item['id']}/image")
        shown = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]
        np.testing.assert_array_equal(shown, read_image(data), err_msg=name)
