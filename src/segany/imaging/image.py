"""Decoding of images of any source to RGB, uint8 [H, W, 3].

The rules are the same for all sources: EXIF orientation is applied, the alpha channel is dropped (colors are not
blended, as with `convert("RGB")` in the official code), gray is repeated in three channels, and the first frame of an
animation is read. 16-bit integers are scaled from their full range, floats from 0..1. Images for which these rules
would silently give wrong pixels are refused unless `PixelOptions` describe them: 12-bit values in 16 bits, floats
outside 0..1, other numbers of bands than 1, 3 and 4, and several pages.
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
from segany.core.files import BoundedFile
from segany.imaging import tiff
from segany.imaging.image_formats import RAW_SUFFIXES, readable_formats
from segany.imaging.pixels import AS_STORED, DARK_16_BITS, PixelOptions, pixels_from_array

ImageFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""An encoded image: a path, the bytes of a file, or a binary file object."""

ImageSource: TypeAlias = "ImageFile | Image.Image | npt.NDArray[Any]"
"""Everything that `read_image` reads."""

DEFAULT_MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: a small file can claim a size that fills the memory (decompression bomb)."""

_HIGH_BYTES = "segany.high_bytes"
"""Key in `info` of a Pillow image whose file has 16 bits per channel, of which Pillow decodes the high 8 bits."""

DNG_VERSION_TAG = 50706
"""The tag of a TIFF file that is a raw file (DNG)."""


def read_image(
    source: ImageSource,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    name: str | None = None,
    options: PixelOptions = AS_STORED,
) -> PixelArray:
    """Read an image as RGB.

    Args:
        source: a path; `bytes`; a binary file object, which is read from its start if it can seek, else from its
            current position, and is left open; a Pillow image of any mode; or an array [H, W], [H, W, 1], [H, W, 3] or
            [H, W, 4] with channels RGB or RGBA, of dtype uint8, bool, uint16 (scaled from 0..65535) or float (scaled
            from 0..1); with `options`, of any number of bands and any numeric dtype.
        max_pixels: images with more pixels are refused, encoded images before decoding.
        name: name of the image in error messages; by default its path or the type of the source.
        options: value range, bands and page, if the image does not determine them.

    Returns:
        uint8 [H, W, 3], contiguous and writable. It shares memory with `source` if that has this format already.

    Raises:
        ImageError: the image is missing, unreadable, not an image, truncated, too large, empty, or its values are not
            valid pixels.
    """
    if isinstance(source, np.ndarray):
        what = name or "The image array"
        _check_size(source.shape[:2] if source.ndim >= 2 else (1, 1), max_pixels, what)
        return pixels_from_array(source, what, options)
    what = name or source_name(source)
    decoded = _decode(source, max_pixels, what, options.page)
    if isinstance(decoded, np.ndarray):
        return pixels_from_array(decoded, what, options)
    return _to_rgb(decoded, what, options)


def decode_image(
    source: ImageFile | Image.Image,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    name: str | None = None,
    page: int | None = None,
) -> Image.Image:
    """Decode an image without converting its values, for label maps and masks. `read_image` uses the same decoder.

    Args:
        source, max_pixels, name: as for `read_image`, without arrays.
        page: index of the page in a multi-page TIFF.

    Returns:
        A decoded Pillow image of any mode, with EXIF orientation applied; its `format` is that of the file.

    Raises:
        ImageError: as for `read_image`, and for a TIFF with values that no mode of Pillow can represent.
    """
    what = name or source_name(source)
    decoded = _decode(source, max_pixels, what, page)
    if isinstance(decoded, np.ndarray):
        raise ImageError(f"{what} has {decoded.shape[2]} bands of {decoded.dtype}, which are no mask. Save it as PNG.")
    return decoded


def _decode(
    source: ImageFile | Image.Image, max_pixels: int, what: str, page: int | None
) -> Image.Image | npt.NDArray[Any]:
    """Decode to a Pillow image; or to an array [H, W, C] for a TIFF that Pillow does not support."""
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
                # Pillow's TIFF decoder checks the pixel limit again when it allocates pixels, so allocate them here.
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
    """Compute the SHA-256 of an image's size and RGB pixels as hex digits.

    Args:
        pixels: uint8 [H, W, 3].
    """
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def keeps_high_bytes_only(image: Image.Image) -> bool:
    """Tell whether an image from `decode_image` has only the high 8 of the 16 bits per channel of its file."""
    return bool(image.info.get(_HIGH_BYTES))


def missing_image(path: Path) -> ImageError:
    """Make the error for a missing image file."""
    if str(path).startswith(("http:/", "https:/")):  # a Path keeps only one of the slashes
        return ImageError(f"{path} is a web address, and those are not fetched. Download the image and give its path.")
    return ImageError(f"There is no file {path}. Check the path.")


def source_name(source: object) -> str:
    """Return the name of an image in messages: its path, or the type of the source."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(source, str) else str(source)
    if isinstance(source, Image.Image):
        return "The Pillow image"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"The image of {len(source):,} bytes"
    name = getattr(source, "name", None)  # a file descriptor for pipes, often None for uploads
    return name if isinstance(name, str) and name else "The image file"


@contextlib.contextmanager
def _opened(source: ImageFile, what: str) -> Iterator[IO[bytes]]:
    """Open an encoded image as a seekable binary file at its start. The caller's file objects are left open."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{what} is a folder. Give the image files in it instead.")
        if not stat.S_ISREG(mode):  # opening a pipe would block until there is a writer
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
    except (AttributeError, OSError):  # pipes, sockets, HTTP responses; io.UnsupportedOperation is an OSError
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
    """Convert errors of opening an image to an `ImageError` with its name."""
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
    except OSError as error:  # errors of the file system, and invalid names
        raise ImageError(f"{what} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # Pillow raises many unrelated types for damaged files
        raise ImageError(f"{what} cannot be read: {error}.") from error


def _open_without_limit(file: IO[bytes]) -> Image.Image:
    """Open an image like `Image.open`, but without Pillow's global pixel limit, since `max_pixels` is an argument.

    Like `Image.open`, it tries the formats that accept the first bytes. The global limit is not changed, because other
    threads may rely on it.
    """
    prefix = file.read(16)
    for name in readable_formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(prefix) is not True:  # a string is the reason why the format is not supported
            continue
        file.seek(0)
        try:
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # `Image.open` tries the next format too
            continue
        return image
    raise UnidentifiedImageError("not an image" if prefix else "empty: it has no bytes")


def _has_16_bits(image: Image.Image) -> bool:
    """Tell whether decoding an opened image would drop the low bytes of 16-bit values."""
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
    """Decode the image and apply the EXIF orientation."""
    with _decoding_errors(what):
        image.load()  # load first, since the orientation of a PNG may be stored after its pixels
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format  # a rotated copy has none
        return upright


@contextlib.contextmanager
def _decoding_errors(what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many unrelated types for damaged files
        raise ImageError(f"{what} is damaged or truncated, or of a kind Pillow cannot decode: {error}.") from error


def _to_rgb(upright: Image.Image, what: str, options: PixelOptions) -> PixelArray:
    with _decoding_errors(what):
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            values = np.asarray(upright)
        elif upright.mode == "F":
            values = np.asarray(upright, dtype=np.float32)
        else:
            # Pillow requires the conversion to RGBA first if the palette has transparency as bytes.
            has_palette = upright.mode in ("P", "PA")
            rgb = (upright.convert("RGBA") if has_palette else upright).convert("RGB")
            pixels = np.array(rgb)  # a copy, since np.asarray would give a read-only view
            if upright.info.get(_HIGH_BYTES) and 0 < pixels.max() <= DARK_16_BITS >> 8:
                raise ImageError(
                    f"{what} has 16 bits a channel of which at most 12 are used, so that it would be nearly black. "
                    "Save it with 8 bits, or as TIFF, for which value_range says what is black and white."
                )
            return pixels if options == AS_STORED else pixels_from_array(pixels, what, options)
    if options.value_range is not None:
        return pixels_from_array(values, what, options)
    # Pillow also uses the 32-bit mode "I" for 16-bit PGM files and some PNG and TIFF files.
    if values.dtype.kind == "i" and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise ImageError(
            f"{what} holds 32-bit integers from {values.min()} to {values.max()}. Only 8 and 16 bits can be "
            "pixels; scale them to 0..255 first."
        )
    return pixels_from_array(values if values.dtype.kind == "f" else values.astype(np.uint16), what, options)
