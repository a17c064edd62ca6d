"""Reads images: every kind of source becomes RGB bytes.

One decoder and one rule for every source: EXIF orientation is applied, the alpha channel is dropped (the colors
beneath it stay, as with the official code's `convert("RGB")`), gray is repeated over the three channels, and of an
animation the first frame is read. Integers of 16 bits are scaled by their full range, floats from 0..1. Where that
would be wrong without a word, as for 12-bit values in 16 bits, for other floats, for more bands than three and for
files of several pages, the image is refused, and `PixelOptions` say what is meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segany.core.arrays import PixelArray
from segany.core.errors import ImageError, check
from segany.core.files import BoundedFile
from segany.imaging import tiff
from segany.imaging.image_formats import RAW_SUFFIXES, readable_formats

ImageFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""An encoded image: a path, the bytes of a file, or a binary file object."""

ImageSource: TypeAlias = "ImageFile | Image.Image | npt.NDArray[Any]"
"""Everything that `read_image` reads."""

DEFAULT_MAX_PIXELS = 100_000_000
"""Images of more pixels are refused: a small file can claim a size that fills the memory."""

FLOAT_TOLERANCE = 1e-3
"""How far float pixels may stray out of 0..1, from rounding; they are clipped."""


DARK_16_BITS = 4095
"""16-bit values that are all at most this are 12 bits or fewer, which would be nearly black over the full range."""

PERCENTILES = 1.0, 99.0
"""The values that `value_range="percentile"` makes black and white."""


@dataclass(frozen=True)
class PixelOptions:
    """What the values of an image mean, where the image itself does not say.

    Attributes:
        value_range: the values that become 0 and 255, such as (0, 4095) for 12 bits; "percentile" takes the 1st and
            the 99th percentile of each image. By default the full range of integers, and 0..1 for floats.
        bands: three bands, counted from 0, that become red, green and blue, or one that becomes gray.
        page: of a multi-page TIFF, counted from 0; smaller copies of other pages do not count.

    Raises:
        ConfigError: a range that is empty, other numbers of bands, or a negative number.
    """

    value_range: tuple[float, float] | Literal["percentile"] | None = None
    bands: tuple[int, ...] | None = None
    page: int | None = None

    def __post_init__(self) -> None:
        given = self.value_range
        if given is not None and given != "percentile":
            is_range = len(given) == 2 and all(map(math.isfinite, given)) and given[0] < given[1]
            check(is_range, f"value_range must be two rising numbers or 'percentile', got {given!r}.")
        if self.bands is not None:
            is_choice = len(self.bands) in (1, 3) and min(self.bands) >= 0
            check(is_choice, f"bands must be one or three numbers from 0, got {self.bands!r}.")
        check(self.page is None or self.page >= 0, f"page must not be negative, got {self.page}.")


_HIGH_BYTES = "segany.high_bytes"
"""In `info` of a Pillow image: it has 8 bits of the 16 of its file, which is how Pillow reads color."""

DNG_VERSION_TAG = 50706
"""Of a TIFF that is a raw file."""

AS_STORED = PixelOptions()
"""No choices: images that need one are refused."""


def read_image(
    source: ImageSource,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    name: str | None = None,
    options: PixelOptions = AS_STORED,
) -> PixelArray:
    """Read an image as RGB bytes.

    Args:
        source: a path; `bytes`; a binary file object, which is read from its start where it can seek, and from
            where it is otherwise, and is left open; a Pillow image of any mode; or an array [H, W], [H, W, 1],
            [H, W, 3] or [H, W, 4], channels red, green, blue(, alpha), of uint8, bool, uint16 (0..65535 is
            scaled to 0..255) or float (0..1 is scaled to 0..255); with `options`, of any bands and numbers.
        max_pixels: images of more pixels are refused, encoded ones before they are decoded.
        name: what error messages call the image; its path, or what kind of source it is, by default.
        options: what the values mean, which bands and which page, where the image does not say.

    Returns:
        uint8 [H, W, 3], contiguous and writable. Shares memory with an array that is all this already.

    Raises:
        ImageError: the image is missing, unreadable, not an image, truncated, too large, empty, or
            holds values that cannot be pixels. The message names the image and what to do.
    """
    if isinstance(source, np.ndarray):
        what = name or "The image array"
        _check_size(source.shape[:2] if source.ndim >= 2 else (1, 1), max_pixels, what)
        return _from_array(source, what, options)
    what = name or source_name(source)
    decoded = _decode(source, max_pixels, what, options.page)
    if isinstance(decoded, np.ndarray):
        return _from_array(decoded, what, options)
    return _to_rgb(decoded, what, options)


def decode_image(
    source: ImageFile | Image.Image,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    name: str | None = None,
    page: int | None = None,
) -> Image.Image:
    """Decode an image with the values it has: the decoder beneath `read_image`, for images that are masks.

    Args:
        source, max_pixels, name: as for `read_image`, without arrays.
        page: of a multi-page TIFF, counted from 0.

    Returns:
        A Pillow image of any mode, decoded, EXIF orientation applied; its `format` is that of the file.

    Raises:
        ImageError: as for `read_image`, and for a TIFF whose values Pillow has no mode for.
    """
    what = name or source_name(source)
    decoded = _decode(source, max_pixels, what, page)
    if isinstance(decoded, np.ndarray):
        raise ImageError(f"{what} has {decoded.shape[2]} bands of {decoded.dtype}, which are no mask. Save it as PNG.")
    return decoded


def _decode(
    source: ImageFile | Image.Image, max_pixels: int, what: str, page: int | None
) -> Image.Image | npt.NDArray[Any]:
    """A Pillow image; or the values [H, W, C] of a TIFF that Pillow does not decode."""
    if isinstance(source, Image.Image):
        _check_size((source.height, source.width), max_pixels, what)
        return _upright(source, what)
    with _named_errors(what), _opened(source, what) as file:
        try:
            image = _open_without_limit(file)
        except UnidentifiedImageError:
            file.seek(0)
            if file.read(4) in tiff.SIGNATURES:
                file.seek(0)
                return tiff.read_tiff(file, page, max_pixels, what)
            raise
        with image:
            if image.format == "TIFF":
                _check_not_raw(image, what)
                tiff.seek_page(image, page, what)
            _check_size((image.height, image.width), max_pixels, what)
            if image.format == "TIFF" and tiff.is_beyond_pillow(image):
                file.seek(0)
                return tiff.read_tiff(file, page, max_pixels, what)
            if image.mode in ("RGB", "RGBA", "LA") and _has_16_bits(image):
                image.info[_HIGH_BYTES] = True
            if image.format == "TIFF":
                # Its decoder checks Pillow's limit once more where it allocates the pixels: it finds them allocated.
                size = getattr(image, "_tile_size", image.size)  # the size before the orientation is applied
                image.im = Image.new(image.mode, size, None).im
            return _upright(image, what)


def _check_not_raw(image: Any, what: str) -> None:
    """Raise `ImageError` for raw files of cameras: what Pillow sees of them is a preview."""
    if DNG_VERSION_TAG in image.tag_v2 or Path(what).suffix.lower() in RAW_SUFFIXES:
        raise ImageError(
            f"{what} is a raw file of a camera, of which only a preview could be read. Convert it to TIFF."
        )


def content_id(pixels: PixelArray) -> str:
    """sha256, in hexadecimal, of an image's size and RGB bytes.

    Args:
        pixels: uint8 [H, W, 3].
    """
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def keeps_high_bytes_only(image: Image.Image) -> bool:
    """Whether an image that `decode_image` returned has 8 of the 16 bits of its file."""
    return bool(image.info.get(_HIGH_BYTES))


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
        with BoundedFile(path) as file:
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


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the decoder of an opened image is about to drop the low bytes of its values."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


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


def _to_rgb(upright: Image.Image, what: str, options: PixelOptions) -> PixelArray:
    with _decoding_errors(what):
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            values = np.asarray(upright)
        elif upright.mode == "F":
            values = np.asarray(upright, dtype=np.float32)
        else:
            # With the transparency of a palette as bytes, Pillow insists on a stop at RGBA.
            has_palette = upright.mode in ("P", "PA")
            rgb = (upright.convert("RGBA") if has_palette else upright).convert("RGB")
            pixels = np.array(rgb)  # a copy: what np.asarray shares with Pillow is read-only
            if upright.info.get(_HIGH_BYTES) and 0 < pixels.max() <= DARK_16_BITS >> 8:
                raise ImageError(
                    f"{what} has 16 bits a channel of which at most 12 are used, so that it would be nearly black. "
                    "Save it with 8 bits, or as TIFF, for which value_range says what is black and white."
                )
            return pixels if options == AS_STORED else _from_array(pixels, what, options)
    if options.value_range is not None:
        return _from_array(values, what, options)
    # Pillow's mode "I", 32 bits, is also what it reads 16-bit PGM files into, and some PNG and TIFF files.
    if values.dtype.kind == "i" and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise ImageError(
            f"{what} holds 32-bit integers from {values.min()} to {values.max()}. Only 8 and 16 bits can be "
            "pixels; scale them to 0..255 first."
        )
    return _from_array(values if values.dtype.kind == "f" else values.astype(np.uint16), what, options)


def _from_array(array: npt.NDArray[Any], what: str, options: PixelOptions) -> PixelArray:
    if options.bands is not None:
        array = _chosen_bands(array, what, options.bands)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise ImageError(f"{what} has shape {list(array.shape)}: move the channels last, to [H, W, C].")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{what} has shape {list(array.shape)}. It must be [H, W], or [H, W, C] with 1, 3 or 4 channels; "
            "one image at a time. Of more bands, choose three: bands=(0, 1, 2), on the command line --bands 0,1,2."
        )
    channels = array[..., None] if array.ndim == 2 else array[..., :3]
    values = _to_uint8(channels, what) if options.value_range is None else _stretched(channels, options.value_range)
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
        highest = int(array.max())
        if 0 < highest <= DARK_16_BITS:
            bits = 8 if highest <= np.iinfo(np.uint8).max else 12
            raise ImageError(
                f"{what} holds 16-bit values up to {highest}, which look like {bits} bits and would be nearly black. "
                f"Say what is white: value_range=(0, {2**bits - 1}), on the command line --range 0,{2**bits - 1}; or "
                "0,65535 where the image is that dark."
            )
        return np.asarray((array.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    if array.dtype.kind == "f":
        return _float_to_uint8(array, what)
    raise ImageError(
        f"{what} has dtype {array.dtype}, which has no agreed range. Say what is black and white: "
        "value_range=(low, high), on the command line --range LOW,HIGH; or convert it to uint8 (0..255), uint16 "
        "(0..65535) or float (0..1)."
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
            f"{what} holds floats from {low:g} to {high:g}. Floats must lie in 0..1. Say what is black and white: "
            f'value_range=({low:g}, {high:g}) or "percentile", on the command line --range {low:g},{high:g}.'
        )
    return np.asarray(np.rint(array.clip(0, 1) * np.float32(255)), dtype=np.uint8)


def _chosen_bands(array: npt.NDArray[Any], what: str, bands: tuple[int, ...]) -> npt.NDArray[Any]:
    """[H, W, 1 | 3] of [H, W] or [H, W, C]."""
    channels = array[..., None] if array.ndim == 2 else array
    if channels.ndim != 3 or max(bands) >= channels.shape[2]:
        raise ImageError(f"{what} has no band {max(bands)}: its shape is {list(array.shape)}, and bands count from 0.")
    return channels[..., list(bands)]


def _stretched(array: npt.NDArray[Any], value_range: tuple[float, float] | Literal["percentile"]) -> PixelArray:
    """Map a range of values to 0..255. What is not a number is black."""
    values = array.astype(np.float32)
    if value_range == "percentile":
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 1.0)
        high = max(high, low + np.finfo(np.float32).tiny)
    else:
        low, high = value_range
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.nan_to_num((values - np.float32(low)) * np.float32(255 / (high - low)), nan=0.0)
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)
