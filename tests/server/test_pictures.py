"""The page gets exactly the pixels that the model sees, and nothing that a browser would show in another way."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin
from tests.server.serving import Served, picture, until

from segany.imaging.image import read_image


def pixels(height: int = 40, width: int = 60, channels: int = 3, dtype: Any = np.uint8) -> Any:
    random = np.random.default_rng(1)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(Image.fromarray(pixels()), format="JPEG", exif=exif)


def rotated_png() -> bytes:
    exif = Image.Exif()
    exif[274] = 8
    return encoded(Image.fromarray(pixels()), format="PNG", exif=exif)


def with_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encoded(Image.fromarray(pixels()), format="JPEG", icc_profile=profile)


def with_gamma() -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (100_000).to_bytes(4, "big"))
    return encoded(Image.fromarray(pixels()), format="PNG", pnginfo=chunks)


def transparent_palette() -> bytes:
    return encoded(Image.fromarray(pixels()).quantize(16), format="PNG", transparency=3)


def animated() -> bytes:
    frames = [Image.fromarray(pixels()), Image.fromarray(255 - pixels())]
    return encoded(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)


def tiff_16_bits() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(dtype=np.uint16), photometric="rgb")
    return file.getvalue()


REWRITTEN = {
    "rotated.jpg": rotated_jpeg,
    "rotated.png": rotated_png,
    "profile.jpg": with_profile,
    "gamma.png": with_gamma,
    "alpha.png": lambda: encoded(Image.fromarray(pixels(channels=4)), format="PNG"),
    "palette.png": transparent_palette,
    "cmyk.jpg": lambda: encoded(Image.fromarray(pixels()).convert("CMYK"), format="JPEG"),
    "gray16.png": lambda: encoded(Image.fromarray(pixels(channels=1, dtype=np.uint16)[..., 0]), format="PNG"),
    "color16.tif": tiff_16_bits,
    "plain.tif": lambda: encoded(Image.fromarray(pixels()), format="TIFF"),
    "animated.webp": animated,
    "photo.jp2": lambda: encoded(Image.fromarray(pixels()), format="JPEG2000", irreversible=False),
    "animal.gif": lambda: encoded(Image.fromarray(pixels()), format="GIF"),
}

AS_STORED = {
    "photo.jpg": (lambda: encoded(Image.fromarray(pixels()), format="JPEG"), "image/jpeg"),
    "gray.jpg": (lambda: encoded(Image.fromarray(pixels(channels=1)[..., 0]), format="JPEG"), "image/jpeg"),
    "color.png": (picture, "image/png"),
    "photo.webp": (lambda: encoded(Image.fromarray(pixels()), format="WEBP"), "image/webp"),
}


def added(server: Served, name: str, data: bytes) -> dict[str, Any]:
    answer = server.http.post("/api/items", files={"files": (name, data)}).json()
    assert answer["skipped"] == []
    item: dict[str, Any] = answer["items"][0]
    return item


@pytest.mark.parametrize("name", REWRITTEN)
def test_page_gets_the_pixels_of_the_model(server: Served, name: str) -> None:
    data = REWRITTEN[name]()
    item = added(server, name, data)
    seen = read_image(data)
    assert (item["height"], item["width"]) == seen.shape[:2]
    for _ in range(2):  # the second from the cache
        answer = server.http.get(f"/api/items/{item['id']}/image", params={"v": item["image"]})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        shown = Image.open(io.BytesIO(answer.content))
        assert (shown.mode, shown.info.get("icc_profile"), len(shown.getexif())) == ("RGB", None, 0)
        np.testing.assert_array_equal(np.asarray(shown), seen)


@pytest.mark.parametrize("name", AS_STORED)
def test_plain_files_are_sent_as_they_are(server: Served, name: str) -> None:
    make, media_type = AS_STORED[name]
    data = make()
    item = added(server, name, data)
    answer = server.http.get(f"/api/items/{item['id']}/image")
    assert (answer.content, answer.headers["content-type"]) == (data, media_type)


def test_thumbnail(server: Served) -> None:
    wide = np.zeros((400, 1600, 3), np.uint8)
    wide[:, 800:] = 200, 100, 50
    item = added(server, "wide.png", encoded(Image.fromarray(wide), format="PNG"))
    answer = server.http.get(f"/api/items/{item['id']}/thumbnail")
    small = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (answer.headers["content-type"], small.shape) == ("image/jpeg", (96, 384, 3))
    assert np.abs(small[48, [50, 330]].astype(int) - [[0, 0, 0], [200, 100, 50]]).max() < 6
    assert list((server.store.folder / "cache" / "thumbnails").rglob("*.jpg"))


def test_browsers_keep_images(server: Served) -> None:
    item = added(server, "a.png", picture())
    answer = server.http.get(f"/api/items/{item['id']}/image")
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]
    again = server.http.get(f"/api/items/{item['id']}/image", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_image_that_was_moved_away_says_so(server: Served, tmp_path: Path) -> None:
    item = added(server, "a.png", picture())
    server.store.blobs.path(item["image"]).unlink()
    for path in ("image", "thumbnail"):
        answer = server.http.get(f"/api/items/{item['id']}/{path}")
        assert answer.status_code == 404
        assert "missing" in answer.json()["message"]
        assert answer.headers["cache-control"] == "no-store"


def test_embedding_of_a_server_without_a_model(server: Served) -> None:
    item = added(server, "a.png", picture())
    answer = until(
        lambda: (known := server.http.get(f"/api/items/{item['id']}/embedding")).status_code != 202 and known
    )
    assert answer.status_code == 409
    assert "None was chosen" in answer.json()["message"]
