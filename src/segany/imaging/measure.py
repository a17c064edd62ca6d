"""Area, stability score and bounding box of masks at the size of the image, computed from low-res logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from segany.core.arrays import MASK_THRESHOLD, BoolArray, FloatArray, IntArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.resize import NUMPY, ROWS_AT_ONCE, Matmul, extent, reach, upscaling_weights

Logits: TypeAlias = Any
"""Arrays, or tensors on an accelerator. The functions here use only operations that both have."""


@dataclass(frozen=True)
class MaskMeasures:
    """Measures of K masks.

    Attributes:
        areas: int64 [K], areas in pixels.
        stability: float32 [K], stability scores: IoU of the masks at a threshold raised and lowered by an offset (SAM,
            section B); 0 if both are empty.
        boxes_xyxy: float32 [K, 4], first and last column and row of the mask, inclusive; zeros for an empty mask.
    """

    areas: IntArray
    stability: FloatArray
    boxes_xyxy: FloatArray


def measure_masks(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, offset: float, matmul: Matmul = NUMPY
) -> MaskMeasures:
    """Measure masks without storing them at the size of the image.

    Args:
        low_res: low-res logits, float32 [K, h, w].
        preprocessing: preprocessing of the model.
        size_hw: size of the image.
        offset: offset of the threshold for the stability score (`stability_score_offset`).
        matmul: implementation of matrix multiplication.
    """
    weights = upscaling_weights((low_res.shape[1], low_res.shape[2]), preprocessing, size_hw)
    return measures_of([_measure_in_strips(logits, *weights, offset, matmul) for logits in low_res])


def measures_of(rows: Sequence[tuple[int, ...]]) -> MaskMeasures:
    """Make measures from seven numbers per mask: area, pixels above the raised and the lowered threshold, and the
    inclusive box x0 y0 x1 y1.
    """
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 7)
    core, union = numbers[:, 1], numbers[:, 2]
    return MaskMeasures(
        areas=numbers[:, 0].astype(np.int64),
        stability=np.divide(core, union, out=np.zeros_like(core), where=union > 0).astype(np.float32),
        boxes_xyxy=numbers[:, 3:].astype(np.float32),
    )


class CutOut(NamedTuple):
    """A crop of low-res logits that contains a mask.

    Attributes:
        values: `Logits` [h', w'].
        top, left: position of the crop.
        size_hw: size of the logits before cropping.
    """

    values: Any
    top: int
    left: int
    size_hw: SizeHW

    def restored(self) -> Any:
        """Undo the crop: `Logits` [h, w], filled with a value far below every threshold."""
        if isinstance(self.values, np.ndarray):
            whole: Any = np.full(self.size_hw, -1e4, dtype=np.float32)
        else:
            whole = self.values.new_full(self.size_hw, -1e4)
        height, width = self.values.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.values
        return whole


def restore(parts: Sequence[CutOut]) -> Logits:
    """Undo the crops of K masks: `Logits` [K, h, w]."""
    first = parts[0].restored()
    shape = (len(parts), *first.shape)
    wholes = np.empty(shape, np.float32) if isinstance(first, np.ndarray) else first.new_empty(shape)
    for row, part in zip(wholes, parts, strict=True):
        row[:] = part.restored()
    return wholes


def cut_out(low_res: Logits, offset: float) -> list[CutOut]:
    """Copy from logits [K, h, w] the crops that are sufficient for `measure_masks` with an offset."""
    height, width = low_res.shape[1:]
    above: Any = low_res > MASK_THRESHOLD - offset
    found, tops, bottoms = _extents(above.any(axis=2))
    _, lefts, rights = _extents(above.any(axis=1))
    # Add a margin for the interpolation of pixels at the edge of the mask.
    boxes = iter(np.stack([tops - 2, bottoms + 3, lefts - 2, rights + 3], axis=1).clip(0).tolist())
    parts = []
    for logits, some in zip(low_res, found, strict=True):
        top, bottom, left, right = next(boxes) if some else (0, 0, 0, 0)
        part = logits[top:bottom, left:right]
        parts.append(CutOut(part.copy() if isinstance(part, np.ndarray) else part.clone(), top, left, (height, width)))
    return parts


class BoxBounds(NamedTuple):
    """Lower and upper bounds of the bounding boxes of K masks at the size of the image.

    Attributes:
        inner_xyxy: float32 [K, 4], contained in the box; zeros if there is no lower bound.
        outer_xyxy: float32 [K, 4], contains the box; zeros for an empty mask.
    """

    inner_xyxy: FloatArray
    outer_xyxy: FloatArray


def bound_boxes(low_res: Logits, preprocessing: Preprocessing, size_hw: SizeHW) -> BoxBounds:
    """Bound the boxes that `measure_masks` computes, at a fraction of its cost.

    An upscaled pixel is a weighted mean of at most 3 x 3 low-res pixels: it is inside the mask if all of them are, and
    outside if none is.

    Args:
        low_res: low-res logits [K, h, w].
        preprocessing: preprocessing of the model.
        size_hw: size of the image.
    """
    supports = _supports((low_res.shape[1], low_res.shape[2]), preprocessing, size_hw)
    height, width = (int(support.last[-1]) + 1 for support in supports)
    above: Any = low_res[:, :height, :width] > MASK_THRESHOLD
    solid = above[:, :-2] & above[:, 1:-1] & above[:, 2:]
    solid = solid[:, :, :-2] & solid[:, :, 1:-1] & solid[:, :, 2:]
    for axis, support in enumerate(supports):
        holds = np.expand_dims(support.holds_pixel, 1 - axis)
        solid &= holds if isinstance(solid, np.ndarray) else solid.new_tensor(holds)
    inner = np.zeros((len(low_res), 4), dtype=np.float32)
    outer = np.zeros_like(inner)
    for axis, (first, last, _) in enumerate(supports):
        low, high = 1 - axis, 3 - axis  # rows give y
        found, start, stop = _extents(above.any(axis=2 - axis))
        outer[found, low] = np.searchsorted(last, start)
        outer[found, high] = np.searchsorted(first, stop, side="right") - 1
        found, start, stop = _extents(solid.any(axis=2 - axis))
        inner[found, low] = np.searchsorted(first, start)
        inner[found, high] = np.searchsorted(last, stop + 2, side="right") - 1
    return BoxBounds(inner, outer)


class _Support(NamedTuple):
    """The support of the interpolation along one axis: the low-res samples that each pixel depends on.

    Attributes:
        first, last: first and last sample of each pixel, int64.
        holds_pixel: whether the support of a pixel lies within three neighboring samples, bool, for each such triple.
    """

    first: IntArray
    last: IntArray
    holds_pixel: BoolArray


@lru_cache(maxsize=8)
def _supports(low_hw: SizeHW, preprocessing: Preprocessing, size_hw: SizeHW) -> tuple[_Support, _Support]:
    rows, columns = (_support(weights) for weights in upscaling_weights(low_hw, preprocessing, size_hw))
    return rows, columns


def _support(weights: FloatArray) -> _Support:
    used = weights > 0
    first, last = used.argmax(axis=1), used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    windows = np.arange(max(0, int(last[-1]) - 1))
    candidate = np.searchsorted(first, windows)  # a later pixel ends later
    holds = candidate < len(first)
    holds[holds] = last[candidate[holds]] <= windows[holds] + 2
    return _Support(first, last, holds)


def _extents(marks: Any) -> tuple[BoolArray, IntArray, IntArray]:
    """Find the rows of bool [K, n] with a true value, bool [K], and the first and last index of these in each."""
    marked = marks if isinstance(marks, np.ndarray) else marks.cpu().numpy()
    found = np.asarray(marked.any(axis=1))
    marked = marked[found]
    if not len(marked):
        return found, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return found, marked.argmax(axis=1), marked.shape[1] - 1 - marked[:, ::-1].argmax(axis=1)


def _measure_in_strips(
    logits: FloatArray, rows: FloatArray, columns: FloatArray, offset: float, matmul: Matmul
) -> tuple[int, ...]:
    """Compute the numbers for `measures_of` from rows @ logits @ columns', in strips of the non-empty region."""
    above = logits > MASK_THRESHOLD - offset
    top, bottom = reach(rows, above.any(axis=1), matmul)
    left, right = reach(columns, above.any(axis=0), matmul)
    if top == bottom or left == right:  # empty, or only in the padding
        return (0,) * 7
    wide = matmul.multiply_transposed(logits, columns[left:right])  # [h, right - left]
    counts = np.zeros(3, dtype=np.int64)
    row_flags = np.zeros(bottom - top, dtype=np.bool_)
    column_flags = np.zeros(right - left, dtype=np.bool_)
    for first in range(top, bottom, ROWS_AT_ONCE):
        strip = rows[first : min(first + ROWS_AT_ONCE, bottom)]
        start, stop = extent(strip.any(axis=0))
        values = matmul.multiply(strip[:, start:stop], wide[start:stop])
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
