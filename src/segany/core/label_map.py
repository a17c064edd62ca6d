"""Label maps: painting them from masks, and giving every pixel the label of the nearest labeled one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import IntArray, SizeHW
from segany.core.rle import Rle, decode_crop

LabelArray: TypeAlias = npt.NDArray[np.int32]

BLOCK_PIXELS = 200_000
"""Rows are done together up to that many pixels, so that the work stays in the cache."""

STRIP_COLUMNS = 256
"""Columns that are swept together, which bounds the memory beside two maps of the image's size."""


def paint_labels(masks: Iterable[tuple[int, Rle]], size_hw: SizeHW) -> LabelArray:
    """Paint masks over each other, the last one on top.

    Args:
        masks: label and mask of each.
        size_hw: of the image.

    Returns:
        int32 [H, W], 0 where there is no mask.
    """
    height, width = size_hw
    transposed = np.zeros((width, height), dtype=np.int32)  # run lengths go column by column
    for label, rle in masks:
        part, (x, y) = decode_crop(rle)
        np.copyto(transposed[x : x + part.shape[1], y : y + part.shape[0]], np.int32(label), where=part.T)
    return np.ascontiguousarray(transposed.T)


def fill_nearest(labels: LabelArray) -> LabelArray:
    """Label every pixel that has none like the nearest one that has, by the distance of their centers.

    Of several that are equally near, the one furthest to the left counts, of those in one column the
    upper one. It is the two-pass distance transform: the nearest labeled pixel of each column, which
    two sweeps find, leaves one search along the row.

    Args:
        labels: int32 [H, W], 0 where there is no label.

    Returns:
        int32 [H, W], a new array. It holds 0 only when there are no labels at all.
    """
    height, width = labels.shape
    filled: LabelArray = labels.copy()
    if not labels.any():
        return filled
    source_row = np.empty(labels.shape, dtype=np.int32)
    for left in range(0, width, STRIP_COLUMNS):
        strip = slice(left, left + STRIP_COLUMNS)
        source_row[:, strip] = _nearest_in_column(labels[:, strip])
    columns = np.arange(width)
    for top in range(0, height, max(1, BLOCK_PIXELS // width)):
        rows = np.arange(top, min(height, top + max(1, BLOCK_PIXELS // width)))
        rows = rows[(labels[rows] == 0).any(axis=1)]
        if not rows.size:
            continue
        source = source_row[rows]
        # A column without labels is further away than anything in the image.
        distance: IntArray = np.where(source >= 0, np.abs(source - rows[:, None]), height + width)
        nearest = _nearest_in_row(distance**2)
        filled[rows] = labels[np.take_along_axis(source, nearest, axis=1), columns[nearest]]
    return filled


def _nearest_in_column(labels: LabelArray) -> LabelArray:
    """For every pixel [H, W] the row of the nearest label in its column; -1 where the column has none."""
    height = len(labels)
    row = np.arange(height, dtype=np.int32)[:, None]
    is_labeled = labels != 0
    above = np.maximum.accumulate(np.where(is_labeled, row, np.int32(-1)), axis=0)
    below = np.minimum.accumulate(np.where(is_labeled, row, np.int32(height))[::-1], axis=0)[::-1]
    takes_above = (above >= 0) & ((below == height) | (row - above <= below - row))
    nearest: LabelArray = np.where(takes_above, above, np.where(below < height, below, np.int32(-1)))
    return nearest


def _nearest_in_row(cost: IntArray) -> IntArray:
    """For every x the least x' that minimizes cost[x'] + (x - x')**2; all [R, W].

    x' never decreases as x grows. So the answer for the middle of a row bounds those on either side of
    it, and each halving looks at every x' of a row about once: W log W steps instead of W**2.
    """
    rows, width = cost.shape
    best = np.zeros((rows, width + 2), dtype=np.int64)  # with a bound on either side
    best[:, -1] = width - 1
    flat_cost = cost.reshape(-1)
    row_start = np.arange(rows)[:, None] * width
    step = 1 << (width.bit_length() - 1)
    while step:
        at = np.arange(step, width + 1, 2 * step)
        first, last = best[:, at - step], best[:, np.minimum(at + step, width + 1)]
        count = (last - first + 1).reshape(-1)
        begin = np.cumsum(count) - count
        candidate = np.arange(int(begin[-1] + count[-1])) + np.repeat(first.reshape(-1) - begin, count)
        query = np.repeat(np.broadcast_to(at - 1, first.shape).reshape(-1), count)
        row = np.repeat(np.broadcast_to(row_start, first.shape).reshape(-1), count)
        # The candidate goes along in the low digits: the least of the sums tells which one it was.
        total = (flat_cost[row + candidate] + (query - candidate) ** 2) * width + candidate
        best[:, at] = (np.minimum.reduceat(total, begin) % width).reshape(first.shape)
        step //= 2
    return best[:, 1:-1]
