"""Reads images: every kind of source becomes RGB bytes.

One decoder and one rule for every source: EXIF orientation is applied, the alpha channel is dropped (the colors
beneath it stay, as with the official code's `convert("RGB")`), gray is repeated over the three channels, 16-bit
values are scaled to 8 bits, and only the first frame of an animation or a multi-page file is read. 32-bit integers
are taken for 16-bit values, which is how Pillow reads some files; where none is above 255 they are refused as
ambiguous.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segany.core.arrays import PixelArray
from segany.core.errors import ImageError

ImageFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""An encoded image: a path, the bytes of a file, or a binary file object."""

ImageSource: TypeAlias = "ImageFile | Image.Image | npt.NDArray[Any]"
"""Everything that `read_image` reads."""

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


def read_image(source: ImageSource, max_pixels: int = DEFAULT_MAX_PIXELS, *, name: str | None = None) -> PixelArray:
    """Read an image as RGB bytes.

    Args:
        source: a path; `bytes`; a binary file object, which is read from its start where it can seek, and from
            where it is otherwise, and is left open; a Pillow image of any mode; or an array [H, W], [H, W, 1],
            [H, W, 3] or [H, W, 4], channels red, green, blue(, alpha), of uint8, bool, uint16 (0..65535 is
            scaled to 0..255) or float (0..1 is scaled to 0..255).
        max_pixels: images of more pixels are refused, encoded ones before they are decoded.
        name: what error messages call the image; its path, or what kind of source it is, by default.

    Returns:
        uint8 [H, W, 3], contiguous and writable. Shares memory with an array that is all this already.

    Raises:
        ImageError: the image is missing, unreadable, not an image, truncated, too large, empty, or
            holds values that cannot be pixels. The message names the image and what to do.
    """
    if isinstance(source, np.ndarray):
        what = name or "The image array"
        _check_size(source.shape[:2] if source.ndim >= 2 else (1, 1), max_pixels, what)
        return _from_array(source, what)
    what = name or source_name(source)
    return _to_rgb(decode_image(source, max_pixels, name=what), what)


def decode_image(
    source: ImageFile | Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS, *, name: str | None = None
) -> Image.Image:
    """Decode an image with the values it has: the decoder beneath `read_image`, for images that are masks.

    Args:
        source, max_pixels, name: as for `read_image`, without arrays.

    Returns:
        A Pillow image of any mode, decoded, EXIF orientation applied; its `format` is that of the file.

    Raises:
        ImageError: as for `read_image`.
    """
    what = name or source_name(source)
    if isinstance(source, Image.Image):
        _check_size((source.height, source.width), max_pixels, what)
        return _upright(source, what)
    with _named_errors(what), _opened(source, what) as file:
        image = _open_without_limit(file)
        with image:
            _check_size((image.height, image.width), max_pixels, what)
            if image.format == "TIFF":
                # Its decoder checks Pillow's limit once more where it allocates the pixels: it finds them allocated.
                size = getattr(image, "_tile_size", image.size)  # the size before the orientation is applied
                image.im = Image.new(image.mode, size, None).im
            return _upright(image, what)


def image_id(pixels: PixelArray) -> str:
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


def source_name(source: object) -> str:
    """What messages call an image: its path, or what kind of source it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(source, str) else str(source)
    if isinstance(source, Image.Image):
        return "The Pillow image"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"The image of {len(source):,} bytes"
    name = getattr(source, "name", None)  # of a pipe it is a number, of an upload often None
    return name if isinstance(name, str) and name else "The image file"


def readable_formats() -> list[str]:
    """Pillow's names of the formats that can be read here."""
    Image.init()  # every plugin, so that the answer does not depend on what was opened before
    return [name for name in READABLE_FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def _opened(source: ImageFile, what: str) -> Iterator[IO[bytes]]:
    """A seekable binary file of an encoded image, at its start. A file object of the caller's is left open."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{what} is a folder. Give the image files in it instead.")
        if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
            raise ImageError(f"{what} is not a file but a pipe, socket or device. Save the image to a file first.")
        with path.open("rb") as file:
            yield file
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif hasattr(source, "read"):
        yield _seekable(source, what)
    else:
        raise ImageError(
            f"An image must be a path, bytes, a binary file, a Pillow image or a NumPy array, got "
            f"{type(source).__name__}. A tensor [C, H, W] goes in as `tensor.permute(1, 2, 0).cpu().numpy()`."
        )


def _seekable(file: IO[bytes], what: str) -> IO[bytes]:
    try:
        file.seek(0)
    except (AttributeError, OSError):  # a pipe, a socket, a response: io.UnsupportedOperation is an OSError
        pass
    else:
        if isinstance(file.read(0), bytes):
            return file
    data: object = file.read()
    if not isinstance(data, bytes):
        raise ImageError(f'{what} is a file that gives {type(data).__name__}, not bytes. Open it in binary mode, "rb".')
    return io.BytesIO(data)


@contextlib.contextmanager
def _named_errors(what: str) -> Iterator[None]:
    """Whatever goes wrong on opening an image, as an `ImageError` that names the image."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise missing_image(Path(what)) from None
    except PermissionError as error:
        raise ImageError(f"{what} may not be read: {error.strerror}. Check the permissions.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{what} is {error}. segany reads {', '.join(readable_formats())}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{what} is larger than Pillow decodes in this format: {error} Raise `PIL.Image.MAX_IMAGE_PIXELS` if you "
            "trust it."
        ) from error
    except OSError as error:  # the file system, or a name no file can have
        raise ImageError(f"{what} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # Pillow's openers raise as many types for broken files as its decoders
        raise ImageError(f"{what} cannot be read: {error}.") from error


def _open_without_limit(file: IO[bytes]) -> Image.Image:
    """`Image.open` without Pillow's pixel limit, which is one for the whole process; ours is an argument.

    Like `Image.open`, it tries the formats that accept the first bytes. The limit itself is left as it is: other
    threads may be opening images under it.
    """
    prefix = file.read(16)
    for name in readable_formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:  # a text says why the format is not supported
            continue
        file.seek(0)
        try:
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # which `Image.open` takes for another format
            continue
        return image
    raise UnidentifiedImageError("not an image" if prefix else "empty: it has no bytes")


def _check_size(size_hw: tuple[int, ...], max_pixels: int, what: str) -> None:
    height, width = size_hw
    if height * width == 0:
        raise ImageError(f"{what} is empty: {width} wide and {height} high.")
    if height * width > max_pixels:
        raise ImageError(
            f"{what} has {height * width:,} pixels ({width} x {height}), more than the limit of {max_pixels:,}. "
            "Make it smaller, or raise max_pixels if you trust it."
        )


def _upright(image: Image.Image, what: str) -> Image.Image:
    """The image decoded, EXIF orientation applied."""
    with _decoding_errors(what):
        image.load()  # before the rotation: the orientation of a PNG may come after its pixels
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format  # which a rotated copy lacks
        return upright


@contextlib.contextmanager
def _decoding_errors(what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types for broken files
        raise ImageError(f"{what} is damaged or truncated, or of a kind Pillow cannot decode: {error}.") from error


def _to_rgb(upright: Image.Image, what: str) -> PixelArray:
    with _decoding_errors(what):
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            values = np.asarray(upright)
        elif upright.mode == "F":
            values = np.asarray(upright, dtype=np.float32)
        else:
            # With the transparency of a palette as bytes, Pillow insists on a stop at RGBA.
            has_palette = upright.mode in ("P", "PA")
            rgb = (upright.convert("RGBA") if has_palette else upright).convert("RGB")
            return np.array(rgb)  # a copy: what np.asarray shares with Pillow is read-only
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
