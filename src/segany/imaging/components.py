"""Connected components of masks by run-based labeling, and removal of small holes and islands.

A mask of two megapixels has a few thousand runs, so that all steps after finding them work on small arrays. Components
are 8-connected, as in the official code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segany.core.arrays import BoolArray, IntArray
from segany.core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Components:
    """The connected components of a mask as R horizontal runs.

    Attributes:
        start, stop: int64 [R], half-open ranges of flat indices (row * width + column); ascending.
        component: int64 [R], label of the component of each run, from 0 in the order of their first pixels.
        areas: int64 [K], area of each component in pixels.
    """

    start: IntArray
    stop: IntArray
    component: IntArray
    areas: IntArray


def find_components(mask: BoolArray) -> Components:
    """Find the 8-connected components of a mask, bool [H, W]."""
    start, stop, row = _runs(mask)
    root = _merge(len(start), *_touching(start, stop, row, mask.shape[1]))
    _, component = np.unique(root, return_inverse=True)
    areas = np.bincount(component, weights=stop - start).astype(np.int64)
    return Components(start, stop, component, areas)


def clean_masks(masks: BoolArray, min_area: int) -> BoolArray:
    """Remove holes and islands of fewer than `min_area` pixels from masks, bool [O, H, W].

    Returns the same array if `min_area` is 0.
    """
    if min_area == 0:
        return masks
    cleaned = np.empty_like(masks)
    for index, mask in enumerate(masks):
        filled, _ = remove_small_regions(mask, min_area, "holes")
        cleaned[index], _ = remove_small_regions(filled, min_area, "islands")
    return cleaned


def remove_small_regions(
    mask: BoolArray, area_thresh: float, mode: Literal["holes", "islands"]
) -> tuple[BoolArray, bool]:
    """Fill small holes of a mask, or remove small islands.

    A hole is a connected component of the background, even if it touches the border of the image. This is
    `remove_small_regions` of the official code with one difference: if all islands are too small, the official code
    keeps the largest, and this function returns an empty mask.

    Args:
        mask: bool [H, W].
        area_thresh: components with fewer pixels are removed.
        mode: "holes" or "islands".

    Returns:
        The mask, bool [H, W], the same array if nothing was removed; and whether it changed.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in ("holes", "islands"):
        raise ConfigError(f"mode must be 'holes' or 'islands', got {mode!r}.")
    fills = mode == "holes"
    parts = find_components(~mask if fills else mask)
    is_small = (parts.areas < area_thresh)[parts.component]
    if not is_small.any():
        return mask, False
    cleaned = np.array(mask, order="C")
    cleaned.reshape(-1)[_ranges(parts.start[is_small], parts.stop[is_small])] = fills
    return cleaned, True


def _runs(mask: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """Find the horizontal runs: start and stop as flat indices, and row."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), dtype=np.bool_)  # a column of background separates the rows
    padded[:, :width] = mask
    flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.append(0, changes)
    start, stop = changes.reshape(-1, 2).T
    row = start // (width + 1)
    return start - row, stop - row, row


def _touching(start: IntArray, stop: IntArray, row: IntArray, width: int) -> tuple[IntArray, IntArray]:
    """Find all pairs of 8-connected runs in neighboring rows: indices of the upper and the lower run."""
    # Pad one column on either side, so that shifting a run by a row and a pixel cannot reach another row.
    key_start, key_stop = start + 2 * row, stop + 2 * row
    below = width + 2
    first = np.searchsorted(key_stop, key_start + below, side="left")
    after = np.searchsorted(key_start, key_stop + below, side="right")
    upper = np.repeat(np.arange(len(start)), after - first)
    return upper, _ranges(first, after)


def _merge(count: int, one: IntArray, other: IntArray) -> IntArray:
    """Find the connected components of a graph of `count` nodes with edges (one, other): the least node of each.

    It is a vectorized union-find: every root is linked to the least root that it has an edge to, then paths are
    compressed by pointer jumping. A few rounds suffice, even for spirals and noise.
    """
    root = np.arange(count)
    while len(one):
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = low != high
        one, other, low, high = one[apart], other[apart], low[apart], high[apart]
        np.minimum.at(root, high, low)
        while not np.array_equal(root, jumped := root[root]):
            root = jumped
    return root


def _ranges(first: IntArray, after: IntArray) -> IntArray:
    """Concatenate the integers of half-open ranges."""
    lengths = after - first
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    numbers: IntArray = np.arange(total) + np.repeat(first - ends + lengths, lengths)
    return numbers
