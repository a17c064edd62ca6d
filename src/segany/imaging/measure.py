"""Area, stability and box of masks at the size of the image, or bounds of the box, from their low-res logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from segany.core.arrays import MASK_THRESHOLD, BoolArray, FloatArray, IntArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.matmul import multiply, multiply_transposed
from segany.imaging.resize import ROWS_AT_ONCE, extent, reach, upscaling_weights

if TYPE_CHECKING:
    from torch import Tensor

Logits: TypeAlias = "FloatArray | Tensor"
"""Arrays; or tensors, which stay on the accelerator where they are. Both have what is asked of them here."""

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


def measure_masks(low_res: Logits, preprocessing: Preprocessing, size_hw: SizeHW, offset: float) -> MaskMeasures:
    """Measure masks without keeping any at the size of the image.

    Args:
        low_res: logits [K, h, w].
        preprocessing: of the model that made them.
        size_hw: of the image.
        offset: how far the threshold is moved for the stability.
    """
    array = _on_cpu(low_res)
    if array is None:
        rows = _measure_tensors(low_res, preprocessing, size_hw, offset)
    else:
        weights = upscaling_weights((array.shape[1], array.shape[2]), preprocessing, size_hw)
        rows = [_measure_in_strips(logits, *weights, offset) for logits in array]
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
    wholes = [part.restored() for part in parts]
    if isinstance(wholes[0], np.ndarray):
        return np.stack(wholes)
    import torch

    return torch.stack(wholes)


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


def _on_cpu(low_res: Logits) -> FloatArray | None:
    """Logits as an array, but for tensors that are on an accelerator or that gradients may be asked of."""
    if isinstance(low_res, np.ndarray):
        return low_res.astype(np.float32, copy=False)
    from segany.kernels.compute import fast_cpu

    return low_res.float().numpy() if fast_cpu(low_res) else None


def _measure_tensors(
    low_res: Any, preprocessing: Preprocessing, size_hw: SizeHW, offset: float
) -> list[tuple[int, ...]]:
    """Area, pixels above the raised and the lowered threshold, and box, of logits [K, h, w]: the plain form."""
    from segany.imaging.interpolate import interpolate_logits

    together = max(1, _LOGITS_AT_ONCE // (size_hw[0] * size_hw[1]))
    rows = []
    for piece in low_res.split(together) if len(low_res) else ():
        for logits in interpolate_logits(piece[None], preprocessing, size_hw)[0]:
            mask = logits > MASK_THRESHOLD
            parts = (mask, logits > MASK_THRESHOLD + offset, logits > MASK_THRESHOLD - offset)
            counts = tuple(int(part.count_nonzero()) for part in parts)
            (top, bottom), (left, right) = (extent(mask.any(dim=axis).cpu().numpy()) for axis in (1, 0))
            rows.append((*counts, left, top, right - 1, bottom - 1) if counts[0] else (*counts, 0, 0, 0, 0))
    return rows


def _measure_in_strips(logits: FloatArray, rows: FloatArray, columns: FloatArray, offset: float) -> tuple[int, ...]:
    """The same of rows @ logits @ columns', where anything can be above the lowered threshold, in strips."""
    above = logits > MASK_THRESHOLD - offset
    top, bottom = reach(rows, above.any(axis=1))
    left, right = reach(columns, above.any(axis=0))
    if top == bottom or left == right:  # nothing, or only in the padding around the image
        return (0,) * 7
    wide = multiply_transposed(logits, columns[left:right])  # [h, right - left]
    counts = np.zeros(3, dtype=np.int64)
    row_flags = np.zeros(bottom - top, dtype=np.bool_)
    column_flags = np.zeros(right - left, dtype=np.bool_)
    for first in range(top, bottom, ROWS_AT_ONCE):
        strip = rows[first : min(first + ROWS_AT_ONCE, bottom)]
        start, stop = extent(strip.any(axis=0))
        values = multiply(strip[:, start:stop], wide[start:stop])
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
