"""Area, stability and box of masks at the size of the image, or bounds of the box, from their low-res logits."""

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
"""Arrays; or tensors, which stay on the accelerator where they are. Both have what is asked of them here."""


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


def measure_masks(
    low_res: FloatArray, preprocessing: Preprocessing, size_hw: SizeHW, offset: float, matmul: Matmul = NUMPY
) -> MaskMeasures:
    """Measure masks without keeping any at the size of the image.

    Args:
        low_res: logits [K, h, w].
        preprocessing: of the model that made them.
        size_hw: of the image.
        offset: how far the threshold is moved for the stability.
        matmul: multiplies matrices.
    """
    weights = upscaling_weights((low_res.shape[1], low_res.shape[2]), preprocessing, size_hw)
    return measures_of([_measure_in_strips(logits, *weights, offset, matmul) for logits in low_res])


def measures_of(rows: Sequence[tuple[int, ...]]) -> MaskMeasures:
    """Measures of masks from seven numbers each: their area, the pixels above the raised and the lowered threshold,
    and first and last column and row as x, y, x, y.
    """
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 7)
    core, union = numbers[:, 1], numbers[:, 2]
    return MaskMeasures(
        areas=numbers[:, 0].astype(np.int64),
        stability=np.divide(core, union, out=np.zeros_like(core), where=union > 0).astype(np.float32),
        boxes_xyxy=numbers[:, 3:].astype(np.float32),
    )


class CutOut(NamedTuple):
    """The part of low-res logits that a mask is made of.

    Attributes:
        values: `Logits` [h', w'].
        top, left: where they were.
        size_hw: of the whole.
    """

    values: Any
    top: int
    left: int
    size_hw: SizeHW

    def restored(self) -> Any:
        """The whole, [h, w]; what was cut off is far below every threshold."""
        if isinstance(self.values, np.ndarray):
            whole: Any = np.full(self.size_hw, -1e4, dtype=np.float32)
        else:
            whole = self.values.new_full(self.size_hw, -1e4)
        height, width = self.values.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.values
        return whole


def restore(parts: Sequence[CutOut]) -> Logits:
    """Several at once, [K, h, w]."""
    first = parts[0].restored()
    shape = (len(parts), *first.shape)
    wholes = np.empty(shape, np.float32) if isinstance(first, np.ndarray) else first.new_empty(shape)
    for row, part in zip(wholes, parts, strict=True):
        row[:] = part.restored()
    return wholes


def cut_out(low_res: Logits, offset: float) -> list[CutOut]:
    """The parts of logits [K, h, w] that `measure_masks` with that offset looks at; copies."""
    height, width = low_res.shape[1:]
    above: Any = low_res > MASK_THRESHOLD - offset
    found, tops, bottoms = _extents(above.any(axis=2))
    _, lefts, rights = _extents(above.any(axis=1))
    # Around it, what pixels that touch it are made of besides.
    boxes = iter(np.stack([tops - 2, bottoms + 3, lefts - 2, rights + 3], axis=1).clip(0).tolist())
    parts = []
    for logits, some in zip(low_res, found, strict=True):
        top, bottom, left, right = next(boxes) if some else (0, 0, 0, 0)
        part = logits[top:bottom, left:right]
        parts.append(CutOut(part.copy() if isinstance(part, np.ndarray) else part.clone(), top, left, (height, width)))
    return parts


class BoxBounds(NamedTuple):
    """What the boxes of K masks at the size of the image certainly contain, and what contains them.

    Attributes:
        inner_xyxy: float32 [K, 4]; zeros where nothing is certain.
        outer_xyxy: float32 [K, 4]; zeros where the mask is empty.
    """

    inner_xyxy: FloatArray
    outer_xyxy: FloatArray


def bound_boxes(low_res: Logits, preprocessing: Preprocessing, size_hw: SizeHW) -> BoxBounds:
    """Bound the boxes that `measure_masks` finds, at a small part of its cost.

    A pixel is a weighted mean of up to three by three neighbors in low resolution: inside the mask where
    all of them are, outside where none is.

    Args:
        low_res: logits [K, h, w].
        preprocessing: of the model that made them.
        size_hw: of the image.
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
    """Which samples of an axis in low resolution the pixels of the image are made of.

    Attributes:
        first, last: of each pixel.
        holds_pixel: of each three neighboring samples, whether a pixel is made of them alone.
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
    """Which rows of [K, n] are marked anywhere, and the first and the last marks of those."""
    marked = marks if isinstance(marks, np.ndarray) else marks.cpu().numpy()
    found = np.asarray(marked.any(axis=1))
    marked = marked[found]
    if not len(marked):
        return found, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return found, marked.argmax(axis=1), marked.shape[1] - 1 - marked[:, ::-1].argmax(axis=1)


def _measure_in_strips(
    logits: FloatArray, rows: FloatArray, columns: FloatArray, offset: float, matmul: Matmul
) -> tuple[int, ...]:
    """The numbers for `measures_of` of rows @ logits @ columns', in strips, where they can exceed the threshold."""
    above = logits > MASK_THRESHOLD - offset
    top, bottom = reach(rows, above.any(axis=1), matmul)
    left, right = reach(columns, above.any(axis=0), matmul)
    if top == bottom or left == right:  # nothing, or only in the padding around the image
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
