"""Simulated clicks of an annotator, as in SAM's and RITM's evaluations.

Distances are Euclidean, between the centers of pixels. Regions end at the border of the image, which is therefore a
boundary too. Of several pixels with the same distance, the topmost is clicked, and of those the leftmost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from segany.core.arrays import BoolArray
from segany.core.boxes import mask_box
from segany.core.extras import import_extra
from segany.core.prompt import BACKGROUND, FOREGROUND


@dataclass(frozen=True)
class Click:
    """A click on a pixel.

    Attributes:
        x, y: column and row of the pixel, as in `Prompt`.
        label: 1 for a false negative, 0 for a false positive.
    """

    x: int
    y: int
    label: int


NextClick: TypeAlias = Callable[[BoolArray, BoolArray, Sequence[Click]], "Click | None"]
"""A click rule: a function of the target and the predicted mask, bool [H, W], and the clicks so far.

It returns the next click, or None if there is no pixel left to click. Before the first click, the predicted mask is
empty.
"""


def sam_click(target: BoolArray, predicted: BoolArray, earlier: Sequence[Click] = ()) -> Click | None:  # noqa: ARG001
    """The click of SAM's evaluation (SAM, section D.1, "Point sampling").

    The first click is the pixel of the object that is farthest from its boundary. Each further click is the pixel that
    is farthest from the boundary of the error region, in which false negatives and false positives form one region.
    Its label is foreground if the pixel belongs to the object.

    Args:
        target: bool [H, W], mask of the object.
        predicted: bool [H, W], predicted mask; empty before the first click.
        earlier: the clicks so far, which this rule ignores.

    Returns:
        The click; None if the prediction has no error.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    found = _deepest(target ^ predicted)
    if found is None:
        return None
    x, y, _ = found
    return Click(x, y, FOREGROUND if target[y, x] else BACKGROUND)


def ritm_click(target: BoolArray, predicted: BoolArray, earlier: Sequence[Click] = ()) -> Click | None:
    """The click of the number-of-clicks protocol (RITM, section 5.1, and its code).

    False negatives and false positives are two separate regions, each padded by a pixel. The click is the pixel of
    either region that is farthest from the boundary of its region; of two with the same distance, the false positive.
    No pixel is clicked twice.

    Args:
        target: bool [H, W], mask of the object.
        predicted: bool [H, W], predicted mask; empty before the first click.
        earlier: the clicks so far.

    Returns:
        The click; None if all wrong pixels have been clicked, in which case RITM's code clicks the top left corner of
        the image.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    missed = _deepest(target & ~predicted, earlier)
    overstepped = _deepest(predicted & ~target, earlier)
    if missed is not None and (overstepped is None or missed[2] > overstepped[2]):
        return Click(missed[0], missed[1], FOREGROUND)
    return None if overstepped is None else Click(overstepped[0], overstepped[1], BACKGROUND)


def _deepest(region: BoolArray, without: Sequence[Click] = ()) -> tuple[int, int, float] | None:
    """Column, row and distance of the pixel of a region that is farthest from its boundary; None if there is none."""
    box = mask_box(region)
    if box is None:
        return None
    left, top, right, bottom = box
    distance_transform = import_extra("scipy.ndimage", "Simulated clicks need SciPy", "train").distance_transform_edt
    # The padding of one pixel makes the border of the region's box a boundary.
    depths = distance_transform(np.pad(region[top:bottom, left:right], 1))[1:-1, 1:-1]
    for click in without:
        if left <= click.x < right and top <= click.y < bottom:
            depths[click.y - top, click.x - left] = 0
    row, column = divmod(int(depths.argmax()), right - left)
    depth = float(depths[row, column])
    return (left + column, top + row, depth) if depth > 0 else None
