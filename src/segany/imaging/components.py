"""Connected components of masks, found on runs of pixels instead of single ones.

A mask of two megapixels has a few thousand runs, so that all the work beyond finding them is on small
arrays. Pixels that touch at a corner belong together (8-connectivity), as in the official code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segany.core.arrays import BoolArray, IntArray
from segany.core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Components:
    """The connected parts of a mask as R runs, each within one row.

    Attributes:
        start, stop: int64 [R], flat indices (row * width + column) of a run's first pixel and of the
            one after its last; ascending.
        component: int64 [R], the number of the component each run belongs to, from 0 in the order of
            their first pixels.
        areas: int64 [K], pixels of each component.
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
    """Masks [O, H, W] without holes and islands of fewer than `min_area` pixels; the same array where that is 0."""
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
    """Fill the small holes of a mask, or drop its small islands.

    A hole is a component of what is not the mask, whether or not it lies inside: a corner of the image
    that the mask cuts off is one too. This is the official code's `remove_small_regions`, but for one
    thing: of a mask whose islands are all too small, the official code keeps the largest; here nothing
    is left of it, since that is what the limit asks for.

    Args:
        mask: bool [H, W].
        area_thresh: components of fewer pixels are removed.
        mode: which of them.

    Returns:
        The mask bool [H, W], the same array where nothing was to be removed; and whether it changed.

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
    """Start, stop (both flat) and row of every run."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), dtype=np.bool_)  # a column of background keeps rows apart
    padded[:, :width] = mask
    flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.append(0, changes)
    start, stop = changes.reshape(-1, 2).T
    row = start // (width + 1)
    return start - row, stop - row, row


def _touching(start: IntArray, stop: IntArray, row: IntArray, width: int) -> tuple[IntArray, IntArray]:
    """All pairs of runs in neighboring rows that touch, at corners too: the upper and the lower run of each."""
    # One column more on either side, so that shifting a run by a row and a pixel cannot reach another row.
    key_start, key_stop = start + 2 * row, stop + 2 * row
    below = width + 2
    first = np.searchsorted(key_stop, key_start + below, side="left")
    after = np.searchsorted(key_start, key_stop + below, side="right")
    upper = np.repeat(np.arange(len(start)), after - first)
    return upper, _ranges(first, after)


def _merge(count: int, one: IntArray, other: IntArray) -> IntArray:
    """The least member of the component of each of `count` nodes, given the pairs that are connected.

    All trees grow at once: every root hooks onto the least root that a member of its tree is paired
    with, then all nodes jump to their roots. A handful of rounds does it, for spirals and noise too.
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
    """The whole numbers of all half-open ranges, one range after the other."""
    lengths = after - first
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    numbers: IntArray = np.arange(total) + np.repeat(first - ends + lengths, lengths)
    return numbers
