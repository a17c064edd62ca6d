"""Label maps: painting them from masks, and filling unlabeled pixels from their nearest labeled neighbors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segany.core.arrays import IntArray, SizeHW
from segany.core.rle import Rle, decode_crop

LabelArray: TypeAlias = npt.NDArray[np.int32]

BLOCK_PIXELS = 200_000
"""Pixels of the blocks of rows that are processed at a time, so that intermediates stay in the cache."""

STRIP_COLUMNS = 256
"""Columns that are processed at a time, which bounds the memory for intermediates."""


def paint_labels(masks: Iterable[tuple[int, Rle]], size_hw: SizeHW) -> LabelArray:
    """Paint masks over each other, the last one on top.

    Args:
        masks: pairs of a label and a run-length encoding.
        size_hw: size of the image.

    Returns:
        int32 [H, W], 0 outside all masks.
    """
    height, width = size_hw
    transposed = np.zeros((width, height), dtype=np.int32)  # run lengths are column-major
    for label, rle in masks:
        part, (x, y) = decode_crop(rle)
        np.copyto(transposed[x : x + part.shape[1], y : y + part.shape[0]], np.int32(label), where=part.T)
    return np.ascontiguousarray(transposed.T)


def fill_nearest(labels: LabelArray) -> LabelArray:
    """Give each unlabeled pixel the label of the nearest labeled pixel, by Euclidean distance.

    Of several pixels at the same distance the leftmost is taken, and of those in one column the upper one. The
    algorithm is the two-pass distance transform: two sweeps find the nearest labeled pixel in each column, then a
    search along each row finds the minimum over the columns.

    Args:
        labels: int32 [H, W], 0 where there is no label.

    Returns:
        int32 [H, W], a new array. It contains 0 only if `labels` is 0 everywhere.
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
        # The distance to a column without labels is larger than any distance in the image.
        distance: IntArray = np.where(source >= 0, np.abs(source - rows[:, None]), height + width)
        nearest = _nearest_in_row(distance**2)
        filled[rows] = labels[np.take_along_axis(source, nearest, axis=1), columns[nearest]]
    return filled


def _nearest_in_column(labels: LabelArray) -> LabelArray:
    """Return for every pixel, [H, W], the row of the nearest label in its column; -1 if the column has none."""
    height = len(labels)
    row = np.arange(height, dtype=np.int32)[:, None]
    is_labeled = labels != 0
    above = np.maximum.accumulate(np.where(is_labeled, row, np.int32(-1)), axis=0)
    below = np.minimum.accumulate(np.where(is_labeled, row, np.int32(height))[::-1], axis=0)[::-1]
    takes_above = (above >= 0) & ((below == height) | (row - above <= below - row))
    nearest: LabelArray = np.where(takes_above, above, np.where(below < height, below, np.int32(-1)))
    return nearest


def _nearest_in_row(cost: IntArray) -> IntArray:
    """Return for every x the least x' that minimizes cost[x'] + (x - x')**2; all [R, W].

    x' never decreases as x grows. The minimizer for the middle of a row therefore bounds the minimizers on either
    side of it (divide and conquer), which takes W log W steps instead of W**2.
    """
    rows, width = cost.shape
    best = np.zeros((rows, width + 2), dtype=np.int64)  # padded with a bound on either side
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
        # The candidate is stored in the low digits of the cost, so that the minimum contains its argmin.
        total = (flat_cost[row + candidate] + (query - candidate) ** 2) * width + candidate
        best[:, at] = (np.minimum.reduceat(total, begin) % width).reshape(first.shape)
        step //= 2
    return best[:, 1:-1]
