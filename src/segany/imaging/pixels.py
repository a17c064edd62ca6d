"""Conversion of arrays of any dtype and number of bands to RGB pixels, uint8 [H, W, 3]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segany.core.arrays import PixelArray, check_unmasked
from segany.core.errors import ImageError, check

FLOAT_TOLERANCE = 1e-3
"""Distance by which float pixels may lie outside 0..1 due to rounding; they are clipped."""


DARK_16_BITS = 4095
"""Largest 12-bit value. A 16-bit image without higher values would be nearly black if scaled from the full range."""

PERCENTILES = 1.0, 99.0
"""Percentiles that `value_range="percentile"` maps to black and white."""


@dataclass(frozen=True)
class PixelOptions:
    """Value range, bands and page of images that do not determine them.

    Attributes:
        value_range: the values that are mapped to 0 and 255, such as (0, 4095) for 12 bits; "percentile" uses the 1st
            and the 99th percentile of each image. The default is the full range of integers, and 0..1 for floats.
        bands: indices of three bands for red, green and blue, or of one band for gray.
        page: index of the page in a multi-page TIFF; reduced copies of other pages (thumbnails) do not count.

    Raises:
        ConfigError: the range is empty, there are not one or three bands, or an index is negative.
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


AS_STORED = PixelOptions()
"""Default options: images that need options are refused."""


def pixels_from_array(array: npt.NDArray[Any], what: str, options: PixelOptions) -> PixelArray:
    """Convert an array [H, W] or [H, W, C] to RGB pixels.

    Args:
        array: the values, of any numeric dtype with `options`, else uint8, bool, uint16 or float.
        what: name of the image in error messages.
        options: value range and bands.

    Returns:
        uint8 [H, W, 3], contiguous and writable.

    Raises:
        ImageError: shape, dtype or range of the array are not those of an image.
    """
    check_unmasked(array, what, ImageError)
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
    """Select bands of [H, W] or [H, W, C]: [H, W, 1 | 3]."""
    channels = array[..., None] if array.ndim == 2 else array
    if channels.ndim != 3 or max(bands) >= channels.shape[2]:
        raise ImageError(f"{what} has no band {max(bands)}: its shape is {list(array.shape)}, and bands count from 0.")
    return channels[..., list(bands)]


def _stretched(array: npt.NDArray[Any], value_range: tuple[float, float] | Literal["percentile"]) -> PixelArray:
    """Map a range of values to 0..255; NaN becomes 0."""
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
