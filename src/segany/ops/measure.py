"""Area, stability and box of masks at the size of the image, from their low-res logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segany.ops.compute import fast_cpu, linear
from segany.ops.resize import ROWS_AT_ONCE, extent, upscale_logits, upscaling_weights
from segany.types import MASK_THRESHOLD, FloatArray, IntArray, Preprocessing, SizeHW

_LOGITS_AT_ONCE = 2**26
"""Logits at the size of the image that the plain form holds: 256 MB in float32."""


@dataclass(frozen=True)
class MaskMeasures:
    """Measures of K masks.

    Attributes:
        areas: int64 [K], pixels.
        stability: float32 [K], IoU of the masks at a threshold raised and lowered by the offset (SAM,
            section B); 0 where both are empty.
        boxes_xyxy: float32 [K, 4], first and last column and row of the mask; zeros where it is empty.
    """

    areas: IntArray
    stability: FloatArray
    boxes_xyxy: FloatArray


def measure_masks(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW, offset: float) -> MaskMeasures:
    """Measure masks without keeping any at the size of the image.

    Args:
        low_res: logits [K, h, w].
        preprocessing: of the model that made them.
        size_hw: of the image.
        offset: how far the threshold is moved for the stability.
    """
    rows = []
    if fast_cpu(low_res):
        weights = upscaling_weights((low_res.shape[1], low_res.shape[2]), preprocessing, size_hw)
        rows = [_measure_in_strips(logits, *weights, offset) for logits in low_res.float()]
    elif len(low_res):
        together = max(1, _LOGITS_AT_ONCE // (size_hw[0] * size_hw[1]))
        for piece in low_res.split(together):
            rows += [_measure(logits, offset) for logits in upscale_logits(piece[None], preprocessing, size_hw)[0]]
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 7)
    core, union = numbers[:, 1], numbers[:, 2]
    return MaskMeasures(
        areas=numbers[:, 0].astype(np.int64),
        stability=np.divide(core, union, out=np.zeros_like(core), where=union > 0).astype(np.float32),
        boxes_xyxy=numbers[:, 3:].astype(np.float32),
    )


def _measure(logits: Tensor, offset: float) -> tuple[int, ...]:
    """Area, pixels above the raised and the lowered threshold, and box, of logits [H, W]."""
    mask = logits > MASK_THRESHOLD
    parts = (mask, logits > MASK_THRESHOLD + offset, logits > MASK_THRESHOLD - offset)
    counts = [int(torch.count_nonzero(part)) for part in parts]
    if counts[0] == 0:
        return *counts, 0, 0, 0, 0
    (top, bottom), (left, right) = (extent(mask.any(dim=axis)) for axis in (1, 0))
    return *counts, left, top, right - 1, bottom - 1


def _measure_in_strips(logits: Tensor, rows: Tensor, columns: Tensor, offset: float) -> tuple[int, ...]:
    """`_measure` of rows @ logits @ columns', where anything can be above the lowered threshold, in strips."""
    above = logits > MASK_THRESHOLD - offset
    top, bottom = extent(rows @ above.any(dim=1).to(rows.dtype))
    left, right = extent(columns @ above.any(dim=0).to(columns.dtype))
    if top == bottom or left == right:  # nothing, or only in the padding around the image
        return (0,) * 7
    wide = linear(logits, columns[left:right])  # [h, right - left]
    counts = np.zeros(3, dtype=np.int64)
    row_flags = np.zeros(bottom - top, dtype=np.bool_)
    column_flags = np.zeros(right - left, dtype=np.bool_)
    for first in range(top, bottom, ROWS_AT_ONCE):
        strip = rows[first : min(first + ROWS_AT_ONCE, bottom)]
        start, stop = extent(strip.any(dim=0))
        values = (strip[:, start:stop] @ wide[start:stop]).numpy()
        mask = values > MASK_THRESHOLD
        counts += (
            np.count_nonzero(mask),
            np.count_nonzero(values > MASK_THRESHOLD + offset),
            np.count_nonzero(values > MASK_THRESHOLD - offset),
        )
        row_flags[first - top : first - top + len(strip)] = mask.any(axis=1)
        column_flags |= mask.any(axis=0)
    if counts[0] == 0:
        return *counts.tolist(), 0, 0, 0, 0
    y, x = np.flatnonzero(row_flags), np.flatnonzero(column_flags)
    return *counts.tolist(), left + int(x[0]), top + int(y[0]), left + int(x[-1]), top + int(y[-1])
