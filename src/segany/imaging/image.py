"""Reading images: files, Pillow images and arrays of many kinds become one kind, RGB bytes.

One rule for every source: EXIF orientation is applied, alpha is dropped (the colors beneath it stay,
as with the official code's `convert("RGB")`), gray is repeated over the three channels, 16 bits are
scaled to 8, and of an animation or a stack only the first picture is read. Integers of 32 bits are taken
for 16 bits, which is how Pillow reads some files; where none is above 255 they are refused as ambiguous.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segany.core.arrays import PixelArray
from segany.core.errors import ImageError

ImageSource: TypeAlias = "str | Path | Image.Image | npt.NDArray[Any]"

DEFAULT_MAX_PIXELS = 100_000_000
"""Images of more pixels are refused: a small file can claim a size that fills the memory."""

READABLE_FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
"""Pillow's names of the formats that are tried, where this Pillow knows them.

Pillow reads more, but some of those run other programs (EPS runs Ghostscript) or hide a picture of
another size behind their header (ICO). HEIF works once `pillow_heif.register_heif_opener()` was called.
"""

FLOAT_TOLERANCE = 1e-3
"""How far float pixels may stray out of 0..1, from rounding; they are clipped."""

_pillow_limit = threading.Lock()


def read_image(source: ImageSource, max_pixels: int = DEFAULT_MAX_PIXELS) -> PixelArray:
    """Read an image as RGB bytes.

    Args:
        source: a path; a Pillow image of any mode; or an array [H, W], [H, W, 1], [H, W, 3] or
            [H, W, 4], channels red, green, blue(, alpha), of uint8, bool, uint16 (0..65535 is scaled
            to 0..255) or float (0..1 is scaled to 0..255).
        max_pixels: refuse images of more pixels, files before anything is decoded.

    Returns:
        uint8 [H, W, 3], contiguous and writable. Shares memory with an array that is all this already.

    Raises:
        ImageError: the image is missing, unreadable, not an image, truncated, too large, empty, or
            holds values that cannot be pixels. The message names the file and what to do.
    """
    if isinstance(source, np.ndarray):
        _check_size(source.shape[:2] if source.ndim >= 2 else (1, 1), max_pixels, "The image array")
        return _from_array(source, "The image array")
    if isinstance(source, Image.Image):
        _check_size((source.height, source.width), max_pixels, "The Pillow image")
        return _from_pillow(source, "The Pillow image")
    if not isinstance(source, (str, Path)):
        raise ImageError(
            f"An image must be a path, a Pillow image or a NumPy array, got {type(source).__name__}. "
            "A tensor [C, H, W] goes in as `tensor.permute(1, 2, 0).cpu().numpy()`."
        )
    return _from_file(source, max_pixels)


def content_id(pixels: PixelArray) -> str:
    """sha256, in hexadecimal, of an image's size and RGB bytes.

    Args:
        pixels: uint8 [H, W, 3].
    """
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def readable_suffixes() -> frozenset[str]:
    """Endings of the names of files that can be read, in lower case and with the dot."""
    formats = set(readable_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def missing_image(path: Path) -> ImageError:
    """The error for an image that is not there."""
    if str(path).startswith(("http:/", "https:/")):  # a Path keeps only one of the slashes
        return ImageError(f"{path} is a web address, and those are not fetched. Download the image and give its path.")
    return ImageError(f"There is no file {path}. Check the path.")


def _from_file(source: str | Path, max_pixels: int) -> PixelArray:
    path = Path(source)
    try:
        with _opened(path) as image:
            _check_size((image.height, image.width), max_pixels, str(path))
            return _from_pillow(image, str(path))
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise missing_image(path) from None
    except PermissionError as error:
        raise ImageError(f"{path} may not be read: {error.strerror}. Check the permissions.") from error
    except UnidentifiedImageError as error:
        what = "not an image" if path.stat().st_size else "empty: it has no bytes"
        raise ImageError(f"{path} is {what}. segany reads {', '.join(readable_formats())}.") from error
    except OSError as error:  # the file system, or a name no file can have
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # Pillow's openers raise as many types for broken files as its decoders
        raise ImageError(f"{str(path)!r} cannot be read: {error}.") from error


def readable_formats() -> list[str]:
    """Pillow's names of the formats that can be read here."""
    Image.init()  # every plugin, so that the answer does not depend on what was opened before
    return [name for name in READABLE_FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file without decoding it and without Pillow's own pixel limit.

    Pillow's limit is one for the whole process and half of it is only a warning; ours is an argument.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path} is a folder. Give the image files in it instead.")
    if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
        raise ImageError(f"{path} is not a file but a pipe, socket or device. Save the image to a file first.")
    with path.open("rb") as file:
        with _pillow_limit:
            limit = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
            try:
                image = Image.open(file, formats=readable_formats())
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with image:
            yield image


def _check_size(size_hw: tuple[int, ...], max_pixels: int, what: str) -> None:
    height, width = size_hw
    if height * width == 0:
        raise ImageError(f"{what} is empty: {width} wide and {height} high.")
    if height * width > max_pixels:
        raise ImageError(
            f"{what} has {height * width:,} pixels ({width} x {height}), more than the limit of {max_pixels:,}. "
            "Make it smaller, or raise max_pixels if you trust it."
        )


def _from_pillow(image: Image.Image, what: str) -> PixelArray:
    try:
        image.load()  # before the rotation: a PNG may tell of it after its pixels
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            values = np.asarray(upright)
        elif upright.mode == "F":
            values = np.asarray(upright, dtype=np.float32)
        else:
            # With the transparency of a palette as bytes, Pillow insists on a stop at RGBA.
            has_palette = upright.mode in ("P", "PA")
            rgb = (upright.convert("RGBA") if has_palette else upright).convert("RGB")
            return np.array(rgb)  # a copy: what np.asarray shares with Pillow is read-only
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types for broken files
        raise ImageError(f"{what} is damaged or truncated, or of a kind Pillow cannot decode: {error}.") from error
    # Pillow's mode "I", 32 bits, is also what it reads 16-bit PGM files into, and some PNG and TIFF files.
    if values.dtype.kind == "i" and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise ImageError(
            f"{what} holds 32-bit integers from {values.min()} to {values.max()}. Only 8 and 16 bits can be "
            "pixels; scale them to 0..255 first."
        )
    if values.dtype.kind == "i" and 0 < values.max() <= np.iinfo(np.uint8).max:
        raise ImageError(
            f"{what} holds 32-bit integers up to {values.max()}, which may be 8-bit pixels or very dark 16-bit ones. "
            'Convert it first: to 8 bits with `Image.fromarray(np.asarray(image).astype("uint8"))`.'
        )
    return _from_array(values if values.dtype.kind == "f" else values.astype(np.uint16), what)


def _from_array(array: npt.NDArray[Any], what: str) -> PixelArray:
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise ImageError(f"{what} has shape {list(array.shape)}: move the channels last, to [H, W, C].")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{what} has shape {list(array.shape)}. It must be [H, W], or [H, W, C] with 1, 3 or 4 channels; "
            "one image at a time."
        )
    channels = array[..., None] if array.ndim == 2 else array[..., :3]
    values = _to_uint8(channels, what)
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    rgb: PixelArray = np.require(values, requirements=["C", "W"])
    return rgb


def _to_uint8(array: npt.NDArray[Any], what: str) -> PixelArray:
    """Scale the values of any supported dtype to 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return np.asarray(np.where(array, 255, 0), dtype=np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.asarray((array.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    if array.dtype.kind == "f":
        return _float_to_uint8(array, what)
    raise ImageError(
        f"{what} has dtype {array.dtype}, which has no agreed range. Convert it to uint8 (0..255), uint16 (0..65535) "
        "or float (0..1)."
    )


def _float_to_uint8(array: npt.NDArray[Any], what: str) -> PixelArray:
    finite = np.isfinite(array)
    if not finite.all():
        raise ImageError(
            f"{what} holds {int((~finite).sum()):,} values that are NaN or infinite. "
            "Replace them first, with np.nan_to_num for instance."
        )
    low, high = float(array.min()), float(array.max())
    if low < -FLOAT_TOLERANCE or high > 1 + FLOAT_TOLERANCE:
        raise ImageError(
            f"{what} holds floats from {low:g} to {high:g}. Floats must lie in 0..1; for 0..255 convert to uint8."
        )
    return np.asarray(np.rint(array.clip(0, 1) * np.float32(255)), dtype=np.uint8)
