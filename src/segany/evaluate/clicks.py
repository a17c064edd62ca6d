"""Where an annotator would click next: the simulated clicks of SAM's and RITM's evaluations.

Distances are Euclidean, between the centers of pixels; what lies outside the image counts as no part of any
region, so that the border of the image is a boundary too. Of pixels equally far from a boundary the topmost is
clicked, and of those the leftmost.
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
        x, y: column and row of the pixel, as a `Prompt` has it.
        label: 1 where the object was missed, 0 where it was overstepped.
    """

    x: int
    y: int
    label: int


NextClick: TypeAlias = Callable[[BoolArray, BoolArray, Sequence[Click]], "Click | None"]
"""A rule of clicking: the object and what was predicted of it, bool [H, W], and the clicks so far, to the next click.

It is None where there is nothing left to click on. Before the first click, the prediction is empty.
"""


def sam_click(target: BoolArray, predicted: BoolArray, earlier: Sequence[Click] = ()) -> Click | None:  # noqa: ARG001
    """The click of SAM's evaluation (SAM, section D.1, "Point sampling").

    The first click is the pixel of the object that is farthest from its boundary. Each further one is the
    pixel farthest from the boundary of the error region between object and prediction: missed and
    overstepped pixels together, as one region. Its label says whether the pixel belongs to the object.

    Args:
        target: bool [H, W], the object.
        predicted: bool [H, W]; empty before the first click.
        earlier: the clicks so far, which make no difference.

    Returns:
        The click; None where the prediction is perfect.

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

    What was missed and what was overstepped are two regions, each padded by a pixel. Of both the pixel that
    is farthest from the boundary of its region is clicked, and where both are as far, the overstepped one.
    No pixel is clicked twice.

    Args:
        target: bool [H, W], the object.
        predicted: bool [H, W]; empty before the first click.
        earlier: the clicks so far.

    Returns:
        The click; None where no wrong pixel is left that was not clicked, in which case RITM's code
        clicks the top left corner of the image.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    missed = _deepest(target & ~predicted, earlier)
    overstepped = _deepest(predicted & ~target, earlier)
    if missed is not None and (overstepped is None or missed[2] > overstepped[2]):
        return Click(missed[0], missed[1], FOREGROUND)
    return None if overstepped is None else Click(overstepped[0], overstepped[1], BACKGROUND)


def _deepest(region: BoolArray, without: Sequence[Click] = ()) -> tuple[int, int, float] | None:
    """Column, row and depth of the pixel of a region that is farthest from its boundary; None where there is none."""
    box = mask_box(region)
    if box is None:
        return None
    left, top, right, bottom = box
    distance_transform = import_extra("scipy.ndimage", "Simulated clicks need SciPy", "train").distance_transform_edt
    # Beyond its box a region has no pixels, and a frame of one pixel says so.
    depths = distance_transform(np.pad(region[top:bottom, left:right], 1))[1:-1, 1:-1]
    for click in without:
        if left <= click.x < right and top <= click.y < bottom:
            depths[click.y - top, click.x - left] = 0
    row, column = divmod(int(depths.argmax()), right - left)
    depth = float(depths[row, column])
    return (left + column, top + row, depth) if depth > 0 else None
