"""Resizing images to a model's input, and low-res logits back to the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import MASK_THRESHOLD, BoolArray, FloatArray, PixelArray, SizeHW
from segany.core.preprocessing import Preprocessing

ROWS_AT_ONCE = 128
"""Output rows computed together: enough to amortize a call, few enough to stay in the cache."""


class Matmul:
    """Products of float32 matrices by NumPy.

    Another library may compute them, which is to be the one that computes otherwise: the threads of two libraries
    slow each other down.
    """

    def multiply(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """left @ right, [m, k] by [k, n]."""
        with np.errstate(invalid="ignore"):  # unused candidates are minus infinity
            return np.asarray(left @ right, dtype=np.float32)

    def multiply_transposed(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """left @ right', [m, k] by [n, k]."""
        return self.multiply(left, right.T)


NUMPY = Matmul()


def resize_pixels(image: PixelArray, preprocessing: Preprocessing) -> PixelArray | FloatArray:
    """Resize [H, W, 3] to its place in the model's input, in units of 0..255, as the official code does.

    SAM resizes whole numbers, SAM 2 floating-point numbers. Both are bilinear and take the average of what
    becomes one pixel.
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
    """Stretch a video frame [H, W, 3] to a square: PIL, bicubic."""
    return np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def upscale_logits(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, matmul: Matmul = NUMPY
) -> FloatArray:
    """Low-res logits float32 [P, M, h, w] at the size of the image, [P, M, H, W].

    Bilinear to the model's input, cut to where the image lies in it, bilinear to the image; where the image
    fills the input, bilinear in one step, as SAM 2 has it. Each step is linear along each axis, so together
    they are one banded matrix an axis.
    """
    rows, columns = upscaling_weights((low_res.shape[-2], low_res.shape[-1]), preprocessing, size_hw)
    logits = np.empty((*low_res.shape[:2], *size_hw), dtype=np.float32)
    for source, target in zip(_matrices(low_res), logits.reshape(-1, *size_hw), strict=True):
        target[:] = matmul.multiply(rows, matmul.multiply_transposed(source, columns))
    return logits


def upscale_masks(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, matmul: Matmul = NUMPY
) -> BoolArray:
    """`upscale_logits` thresholded, bool [P, M, H, W], without ever holding the logits.

    Interpolation only averages, so nothing is above the threshold outside the box of what is above it in low
    resolution.
    """
    rows, columns = upscaling_weights((low_res.shape[-2], low_res.shape[-1]), preprocessing, size_hw)
    masks = np.zeros((*low_res.shape[:2], *size_hw), dtype=np.bool_)
    for logits, mask in zip(_matrices(low_res), masks.reshape(-1, *size_hw), strict=True):
        _threshold_into(mask, logits, rows, columns, matmul)
    return masks


def _matrices(low_res: FloatArray) -> FloatArray:
    """[P, M, h, w] to [P * M, h, w], which may be written to: PyTorch takes no others."""
    flat = low_res.reshape(-1, *low_res.shape[2:]).astype(np.float32, copy=False)
    return flat if flat.flags.writeable else flat.copy()


def upscaling_weights(low_hw: SizeHW, preprocessing: Preprocessing, size_hw: SizeHW) -> tuple[FloatArray, FloatArray]:
    """`upscale_logits` as matrices [H, h] and [W, w]: it is rows @ logits @ columns'."""
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
    """Set `mask` [H, W], all false, to rows @ logits @ columns' > threshold, for logits [h, w]."""
    above = logits > MASK_THRESHOLD
    top, bottom = reach(rows, above.any(axis=1), matmul)
    left, right = reach(columns, above.any(axis=0), matmul)
    if top == bottom or left == right:  # nothing, or only in the padding around the image
        return
    wide = matmul.multiply_transposed(logits, columns[left:right])  # [h, right - left]
    for first in range(top, bottom, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, bottom)
        start, stop = extent(rows[first:last].any(axis=0))
        values = matmul.multiply(rows[first:last, start:stop], wide[start:stop])
        np.greater(values, MASK_THRESHOLD, out=mask[first:last, left:right])


def reach(weights: FloatArray, marks: npt.ArrayLike, matmul: Matmul) -> tuple[int, int]:
    """Which of the samples that [out, side] makes take anything from those that are marked [side]; see `extent`."""
    # Weights are not negative.
    return extent(matmul.multiply(weights, np.asarray(marks, dtype=np.float32)[:, None]))


def extent(marks: npt.ArrayLike) -> tuple[int, int]:
    """First index that is not zero, and one past the last; 0 and 0 where all are."""
    indices = np.flatnonzero(marks)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


@lru_cache(maxsize=8)
def _two_step_weights(side: int, size: int, resized: int, out: int) -> FloatArray:
    """[out, side]: bilinear from `side` to `size`, cut to `resized`, bilinear to `out`."""
    return _bilinear_weights(resized, out) @ _bilinear_weights(side, size)[:resized]


@lru_cache(maxsize=8)
def _one_step_weights(side: int, out: int) -> FloatArray:
    return _bilinear_weights(side, out)


def _bilinear_weights(side: int, out: int) -> FloatArray:
    """[out, side]: each row the two weights of one output sample (half-pixel centers, clamped borders)."""
    center = np.clip((np.arange(out, dtype=np.float32) + 0.5) * np.float32(side / out) - 0.5, 0, side - 1)
    lower = np.floor(center).astype(np.int64)
    upper = np.minimum(lower + 1, side - 1)
    fraction = center - lower
    weights = np.zeros((out, side), dtype=np.float32)
    samples = np.arange(out)
    weights[samples, lower] += 1 - fraction
    weights[samples, upper] += fraction
    return weights
