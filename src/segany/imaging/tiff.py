"""TIFF files that Pillow does not support (planar 16 bits, floats, many bands), read with tifffile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.errors import ImageError

BITS_PER_SAMPLE, COMPRESSION, SAMPLES_PER_PIXEL, PLANAR, SAMPLE_FORMAT = 258, 259, 277, 284, 339
SUBFILE_TYPE, ORIENTATION = 254, 274
"""Tag numbers (TIFF 6.0)."""

REDUCED = 1
"""Bit of `SUBFILE_TYPE` for a reduced copy of another page: a thumbnail or a pyramid level."""

MAX_BYTES_A_PIXEL = 256
"""Most bytes per pixel, over all bands; files with more are refused."""

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""


def is_beyond_pillow(image: Image.Image) -> bool:
    """Tell whether Pillow would decode a TIFF image incorrectly.

    Of 16-bit images with several samples it reads only the high bytes, and planar ones as noise.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, samples = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLES_PER_PIXEL, 1)
    return bool(samples > 1 and max(bits if isinstance(bits, tuple) else (bits,)) > 8)


def seek_page(image: Image.Image, page: int | None, what: str) -> None:
    """Seek to a page of a TIFF image opened by Pillow; reduced copies of other pages do not count.

    Raises:
        ImageError: there are several pages and `page` is None, or there is no such page.
    """
    full: list[int] = []
    last = 1 if page is None else page
    index = 0
    while len(full) <= last:
        try:
            image.seek(index)
        except EOFError:
            break
        if not image.tag_v2.get(SUBFILE_TYPE, 0) & REDUCED:  # type: ignore[attr-defined]
            full.append(index)
        index += 1
    image.seek(full[_checked_page(len(full), page, what)] if full else 0)


def read_tiff(file: IO[bytes], page: int | None, max_pixels: int, what: str) -> npt.NDArray[Any]:
    """Read a TIFF image of any dtype and number of bands: [H, W, C], with the orientation applied.

    Raises:
        ImageError: the file is damaged, too large, has more than two spatial axes, or its compression is not supported.
    """
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            pages = list(_full_pages(tiff))
            chosen = pages[_checked_page(len(pages), page, what)] if pages else tiff.pages[0]
            _check(chosen, max_pixels, what)
            values: npt.NDArray[Any] = chosen.asarray()
            axes, is_inverted = str(chosen.axes), int(chosen.photometric) == 0
            orientation = int(chosen.tags[ORIENTATION].value) if ORIENTATION in chosen.tags else 1
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # tifffile raises many unrelated types for damaged files
        raise ImageError(f"{what} cannot be read as TIFF: {error}.") from error
    if axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif axes == "YX":
        values = values[..., None]
    elif axes != "YXS":
        raise ImageError(f"{what} has the axes {axes}, not those of one image. Save one plane of it as a file.")
    if is_inverted and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    return _upright(values, orientation)


def _full_pages(tiff: Any) -> Iterator[Any]:
    """Yield the pages that are no thumbnails, each once: in a damaged file, the chain of pages may lead back."""
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen:
            return
        seen.add(page.offset)
        if not page.is_reduced:
            yield page


def _checked_page(count: int, page: int | None, what: str) -> int:
    if page is None and count > 1:
        raise ImageError(f"{what} has several pages. Choose one, counted from 0: page=0, on the command line --page 0.")
    if page is not None and not 0 <= page < max(count, 1):
        raise ImageError(f"{what} has no page {page}: it has {max(count, 1)}, counted from 0.")
    return page or 0


def _check(page: Any, max_pixels: int, what: str) -> None:
    height, width = int(page.imagelength), int(page.imagewidth)
    if height * width > max_pixels:
        raise ImageError(
            f"{what} has {height * width:,} pixels ({width} x {height}), more than the limit of {max_pixels:,}. "
            "Make it smaller, or raise max_pixels if you trust it."
        )
    if page.dtype is None or int(page.imagedepth) != 1:
        raise ImageError(f"{what} is a kind of TIFF that is not supported.")
    if int(page.samplesperpixel) * page.dtype.itemsize > MAX_BYTES_A_PIXEL:
        raise ImageError(f"{what} has {page.samplesperpixel} bands, more than are read.")


def _upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply the TIFF or EXIF orientation, 1 to 8, to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)
