"""Resizing of images to the input size, and upscaling of low-res logits to the size of the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import MASK_THRESHOLD, BoolArray, FloatArray, PixelArray, SizeHW
from segany.core.preprocessing import Preprocessing

ROWS_AT_ONCE = 128
"""Output rows per matrix product: enough to amortize a call, few enough to stay in the cache."""


class Matmul:
    """Matrix multiplication in float32 with NumPy.

    Subclasses use another library. It should be the one that runs the model, since two thread pools slow each other
    down.
    """

    def multiply(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Compute left @ right, [m, k] by [k, n]."""
        with np.errstate(invalid="ignore"):  # the logits of unused candidates are -inf
            return np.asarray(left @ right, dtype=np.float32)

    def multiply_transposed(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Compute left @ right', [m, k] by [n, k]."""
        return self.multiply(left, right.T)


NUMPY = Matmul()


def resize_pixels(image: PixelArray, preprocessing: Preprocessing) -> PixelArray | FloatArray:
    """Resize an image, uint8 [H, W, 3], to the input size without padding, in units of 0..255.

    As in the official code, SAM resizes uint8 values and SAM 2 float values, both with antialiased bilinear
    interpolation.
    """
    height, width = preprocessing.resized_hw((image.shape[0], image.shape[1]))
    if image.shape[:2] == (height, width):
        return image
    if preprocessing.resize == "square":
        channels = (Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3))
        stretched = [channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels]
        return np.stack([np.asarray(channel) for channel in stretched], axis=-1)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_frame(frame: PixelArray, side: int) -> PixelArray:
    """Resize a video frame, uint8 [H, W, 3], to a square with PIL's bicubic interpolation."""
    return np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def upscale_logits(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, matmul: Matmul = NUMPY
) -> FloatArray:
    """Upscale low-res logits, float32 [P, M, h, w], to the size of the image: float32 [P, M, H, W].

    SAM: interpolate bilinearly to the input size, crop the padding, interpolate to the size of the image. SAM 2:
    interpolate to the size of the image in one step. All steps are linear and separable, so that together they are one
    banded matrix per axis.
    """
    rows, columns = upscaling_weights((low_res.shape[-2], low_res.shape[-1]), preprocessing, size_hw)
    logits = np.empty((*low_res.shape[:2], *size_hw), dtype=np.float32)
    for source, target in zip(_matrices(low_res), logits.reshape(-1, *size_hw), strict=True):
        target[:] = matmul.multiply(rows, matmul.multiply_transposed(source, columns))
    return logits


def upscale_masks(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, matmul: Matmul = NUMPY
) -> BoolArray:
    """Upscale and threshold low-res logits, bool [P, M, H, W], without storing the upscaled logits.

    Interpolated values are weighted means, so that only the region around low-res pixels above the threshold needs to
    be computed.
    """
    rows, columns = upscaling_weights((low_res.shape[-2], low_res.shape[-1]), preprocessing, size_hw)
    masks = np.zeros((*low_res.shape[:2], *size_hw), dtype=np.bool_)
    for logits, mask in zip(_matrices(low_res), masks.reshape(-1, *size_hw), strict=True):
        _threshold_into(mask, logits, rows, columns, matmul)
    return masks


def _matrices(low_res: FloatArray) -> FloatArray:
    """Reshape [P, M, h, w] to [P * M, h, w], copied if it is read-only, since PyTorch requires writable memory."""
    flat = low_res.reshape(-1, *low_res.shape[2:]).astype(np.float32, copy=False)
    return flat if flat.flags.writeable else flat.copy()


def upscaling_weights(low_hw: SizeHW, preprocessing: Preprocessing, size_hw: SizeHW) -> tuple[FloatArray, FloatArray]:
    """Compute the matrices of `upscale_logits`, rows [H, h] and columns [W, w]: it is rows @ logits @ columns'."""
    if preprocessing.resize == "square":
        rows, columns = (_one_step_weights(low, out) for low, out in zip(low_hw, size_hw, strict=True))
        return rows, columns
    resized_hw = preprocessing.resized_hw(size_hw)
    rows, columns = (
        _two_step_weights(low, preprocessing.input_size, resized, out)
        for low, resized, out in zip(low_hw, resized_hw, size_hw, strict=True)
    )
    return rows, columns


def _threshold_into(mask: BoolArray, logits: FloatArray, rows: FloatArray, columns: FloatArray, matmul: Matmul) -> None:
    """Set `mask`, bool [H, W] and all false, to rows @ logits @ columns' > threshold, for logits [h, w]."""
    above = logits > MASK_THRESHOLD
    top, bottom = reach(rows, above.any(axis=1), matmul)
    left, right = reach(columns, above.any(axis=0), matmul)
    if top == bottom or left == right:  # empty, or only in the padding
        return
    wide = matmul.multiply_transposed(logits, columns[left:right])  # [h, right - left]
    for first in range(top, bottom, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, bottom)
        start, stop = extent(rows[first:last].any(axis=0))
        values = matmul.multiply(rows[first:last, start:stop], wide[start:stop])
        np.greater(values, MASK_THRESHOLD, out=mask[first:last, left:right])


def reach(weights: FloatArray, marks: npt.ArrayLike, matmul: Matmul) -> tuple[int, int]:
    """Return the range of outputs of weights [out, side] that depend on marked inputs, bool [side]; see `extent`."""
    # Weights are not negative.
    return extent(matmul.multiply(weights, np.asarray(marks, dtype=np.float32)[:, None]))


def extent(marks: npt.ArrayLike) -> tuple[int, int]:
    """Return the half-open range of indices from the first to the last nonzero element; 0, 0 if there is none."""
    indices = np.flatnonzero(marks)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


@lru_cache(maxsize=8)
def _two_step_weights(side: int, size: int, resized: int, out: int) -> FloatArray:
    """Compute the matrix [out, side] of: interpolate from `side` to `size`, crop to `resized`, interpolate to `out`."""
    return _bilinear_weights(resized, out) @ _bilinear_weights(side, size)[:resized]


@lru_cache(maxsize=8)
def _one_step_weights(side: int, out: int) -> FloatArray:
    return _bilinear_weights(side, out)


def _bilinear_weights(side: int, out: int) -> FloatArray:
    """Compute the matrix [out, side] of bilinear interpolation with half-pixel centers and clamped borders."""
    center = np.clip((np.arange(out, dtype=np.float32) + 0.5) * np.float32(side / out) - 0.5, 0, side - 1)
    lower = np.floor(center).astype(np.int64)
    upper = np.minimum(lower + 1, side - 1)
    fraction = center - lower
    weights = np.zeros((out, side), dtype=np.float32)
    samples = np.arange(out)
    weights[samples, lower] += 1 - fraction
    weights[samples, upper] += fraction
    return weights
