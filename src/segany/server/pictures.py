"""Images as the page shows them: the pixels that the predictor sees, and thumbnails.

A browser applies color profiles, blends transparency, and plays animations; segany does none of that. Where the two
would differ, and where a browser does not know the format, the page gets segany's pixels as PNG. Those, and
thumbnails, are kept in the cache of the project.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from segany.core.errors import ImageError, OutputError
from segany.core.files import read_file, write_file
from segany.imaging.image import decode_image, read_image
from segany.imaging.image_formats import readable_formats
from segany.store import Item, Store

THUMBNAIL_SIDE = 384

MAX_CACHE_BYTES = 4 << 30
"""Of the PNGs; then the oldest are deleted."""

_SHOWN_AS_STORED = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp"}

_ORIENTATION = 274  # the tag of EXIF

_COLOR = ("icc_profile", "gamma", "chromaticity", "transparency")
"""What Pillow notes of a file that browsers heed and segany does not."""


@dataclass(frozen=True)
class Picture:
    """An encoded image, and its media type, which is one of a few that we name."""

    data: bytes
    media_type: str


class Pictures:
    """The images of a project for the page."""

    def __init__(self, store: Store) -> None:
        self._store, self._folder = store, store.folder / "cache"

    def image(self, item: Item) -> Picture:
        """An item's image, whose pixels are those of `read_image`.

        Raises:
            ImageError: its file is missing or damaged.
        """
        cached = self._folder / "images" / item.sha256[:2] / f"{item.sha256}.png"
        with contextlib.suppress(OSError):
            return Picture(cached.read_bytes(), "image/png")
        data = self._file(item)
        media_type = _media_type_if_plain(data)
        if media_type is not None:
            return Picture(data, media_type)
        picture = io.BytesIO()
        Image.fromarray(read_image(data, name=item.name)).save(picture, "PNG", compress_level=1)
        self._keep(cached, picture.getvalue())
        _delete_oldest(self._folder / "images", MAX_CACHE_BYTES)
        return Picture(picture.getvalue(), "image/png")

    def thumbnail(self, item: Item) -> Picture:
        """A small copy of an item's image; errors as for `image`."""
        cached = self._folder / "thumbnails" / item.sha256[:2] / f"{item.sha256}.jpg"
        with contextlib.suppress(OSError):
            return Picture(cached.read_bytes(), "image/jpeg")
        small = Image.fromarray(read_image(self._file(item), name=item.name))
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        picture = io.BytesIO()
        small.save(picture, "JPEG", quality=85)
        self._keep(cached, picture.getvalue())
        return Picture(picture.getvalue(), "image/jpeg")

    def _file(self, item: Item) -> bytes:
        return read_file(self._store.items.file(item.id), ImageError)

    def _keep(self, path: Path, data: bytes) -> None:
        with contextlib.suppress(OutputError):  # a full disk: it is made again next time
            write_file(path, data)


def media_type_of(data: bytes) -> str:
    """The media type of an image that `read_image` reads."""
    with _opened(data) as image:
        return "image/tiff" if image is None else Image.MIME.get(image.format or "", "application/octet-stream")


def _media_type_if_plain(data: bytes) -> str | None:
    """The media type of an image that every browser shows with exactly segany's pixels; None for any other."""
    with _opened(data) as image:
        if image is None or image.format not in _SHOWN_AS_STORED or image.mode not in ("RGB", "L", "P"):
            return None
        if getattr(image, "is_animated", False) or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
            return None
    decoded = decode_image(data)  # PNG may have its orientation after the pixels; and a damaged file is not passed on
    has_color = any(name in image.info or name in decoded.info for name in _COLOR)
    is_turned = image.getexif().get(_ORIENTATION, 1) != 1
    return None if has_color or is_turned else _SHOWN_AS_STORED[image.format]


@contextlib.contextmanager
def _opened(data: bytes) -> Any:
    """The image with its header read; None where Pillow does not know it, which are some TIFF files."""
    try:
        image = Image.open(io.BytesIO(data), formats=readable_formats())
    except (OSError, ValueError, SyntaxError):
        yield None
    else:
        yield image


def _delete_oldest(folder: Path, most: int) -> None:
    """Delete the oldest files below a folder until the rest has at most so many bytes."""
    with contextlib.suppress(OSError):
        files = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in folder.glob("*/*.png"))
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= most:
                break
            file.unlink(missing_ok=True)
            total -= size
