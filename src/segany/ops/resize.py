"""Resizing images to a model's input, and low-res logits back to the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segany.ops.compute import fast_cpu, linear
from segany.types import MASK_THRESHOLD, BoolArray, FloatArray, PixelArray, Preprocessing, SizeHW

ROWS_AT_ONCE = 128
"""Output rows computed together: enough to amortise a call, few enough to stay in the cache."""


def resize_pixels(image: PixelArray, preprocessing: Preprocessing) -> PixelArray | FloatArray:
    """Resize [H, W, 3] to its place in the model's input, in units of 0..255, as the official code does.

    SAM resizes whole numbers, by PIL; SAM 2 floating-point numbers, by PyTorch. Both are bilinear and
    take the average of what becomes one pixel.
    """
    height, width = preprocessing.resized_hw((image.shape[0], image.shape[1]))
    if image.shape[:2] == (height, width):
        return image
    if preprocessing.resize == "square":
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
        return resize_smoothly(pixels, (height, width))[0].permute(1, 2, 0).numpy()
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_frame(frame: PixelArray, side: int) -> PixelArray:
    """Stretch a video frame [H, W, 3] to a square: PIL, bicubic."""
    return np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def resize_mask(mask: BoolArray, side: int) -> BoolArray:
    """Stretch a mask [H, W] to a square: what covers half of a pixel or more."""
    if mask.shape == (side, side):
        return mask
    covered = resize_smoothly(torch.from_numpy(mask.astype(np.float32))[None, None], (side, side))[0, 0].numpy()
    return np.asarray(covered >= 0.5)


def resize_smoothly(x: Tensor, size_hw: SizeHW) -> Tensor:
    """Resize floating-point [B, C, H, W]: bilinear, averaging what becomes one pixel where it shrinks."""
    return F.interpolate(x, size_hw, mode="bilinear", align_corners=False, antialias=True)


def upscale_logits(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW) -> Tensor:
    """Low-res logits [P, M, h, w] at the size of the image, [P, M, H, W].

    Bilinear to the model's input, cut to where the image lies in it, bilinear to the image. Where the
    image fills the input, bilinear in one step, as SAM 2 has it.
    """
    if preprocessing.resize == "square":
        return F.interpolate(low_res.float(), size_hw, mode="bilinear", align_corners=False)
    size = (preprocessing.input_size, preprocessing.input_size)
    logits = F.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    height, width = preprocessing.resized_hw(size_hw)
    return F.interpolate(logits[..., :height, :width], size_hw, mode="bilinear", align_corners=False)


def upscale_masks(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW) -> Tensor:
    """`upscale_logits` thresholded, bool [P, M, H, W].

    On a CPU the logits are never held. Both steps are linear along each axis, so together they are one
    banded matrix an axis; and they only average, so nothing is above the threshold outside the box of
    what is above it in low resolution.
    """
    if not fast_cpu(low_res):
        return upscale_logits(low_res, preprocessing, size_hw) > MASK_THRESHOLD
    rows, columns = upscaling_weights((low_res.shape[-2], low_res.shape[-1]), preprocessing, size_hw)
    masks = torch.zeros(*low_res.shape[:2], *size_hw, dtype=torch.bool)
    for logits, mask in zip(low_res.float().flatten(0, 1), masks.flatten(0, 1), strict=True):
        _threshold_into(mask, logits, rows, columns)
    return masks


def upscaling_weights(low_hw: SizeHW, preprocessing: Preprocessing, size_hw: SizeHW) -> tuple[Tensor, Tensor]:
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


def _threshold_into(mask: Tensor, logits: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Set `mask` [H, W], all false, to rows @ logits @ columns' > threshold, for logits [h, w]."""
    above = logits > MASK_THRESHOLD
    # Weights are not negative, so a sample that takes anything from a marked row or column is above zero.
    top, bottom = extent(rows @ above.any(dim=1).to(rows.dtype))
    left, right = extent(columns @ above.any(dim=0).to(columns.dtype))
    if top == bottom or left == right:  # nothing, or only in the padding around the image
        return
    wide = linear(logits, columns[left:right])  # [h, right - left]
    for first in range(top, bottom, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, bottom)
        start, stop = extent(rows[first:last].any(dim=0))
        values = rows[first:last, start:stop] @ wide[start:stop]
        torch.gt(values, MASK_THRESHOLD, out=mask[first:last, left:right])


def extent(marks: Tensor) -> tuple[int, int]:
    """First index that is not zero, and one past the last; 0 and 0 where all are."""
    indices = marks.nonzero()
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


@lru_cache(maxsize=8)
def _two_step_weights(side: int, size: int, resized: int, out: int) -> Tensor:
    """[out, side]: bilinear from `side` to `size`, cut to `resized`, bilinear to `out`."""
    return _bilinear_weights(resized, out) @ _bilinear_weights(side, size)[:resized]


@lru_cache(maxsize=8)
def _one_step_weights(side: int, out: int) -> Tensor:
    return _bilinear_weights(side, out)


def _bilinear_weights(side: int, out: int) -> Tensor:
    """[out, side]: each row the two weights of one output sample (half-pixel centres, clamped borders)."""
    centre = ((torch.arange(out, dtype=torch.float32) + 0.5) * (side / out) - 0.5).clamp(0, side - 1)
    lower = centre.floor().long()
    upper = (lower + 1).clamp(max=side - 1)
    fraction = centre - lower
    weights = torch.zeros(out, side)
    weights.scatter_add_(1, lower[:, None], (1 - fraction)[:, None])
    weights.scatter_add_(1, upper[:, None], fraction[:, None])
    return weights
