"""Region similarity J and boundary accuracy F of tracked objects (DAVIS)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.boxes import mask_box
from segany.core.extras import import_extra
from segany.evaluate.metrics import mask_iou, mean

TOLERANCE = 0.008
"""Largest distance of matched boundary pixels, as a share of the image's diagonal."""


def tolerance_pixels(size_hw: SizeHW) -> int:
    """`TOLERANCE` in pixels for an image of a size, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(*size_hw))


def outline(mask: BoolArray) -> BoolArray:
    """The boundary of a bool mask [H, W], one pixel wide: bool [H, W].

    As in DAVIS's evaluation, boundary pixels differ from their right, lower or lower right neighbor. In the last row
    only the right neighbor counts, and in the last column only the lower one. The boundary is therefore shifted by half
    a pixel to the top left, and the borders of the image are not part of it.
    """
    found = np.zeros_like(mask)
    found[:-1, :-1] = (
        (mask[:-1, :-1] ^ mask[:-1, 1:]) | (mask[:-1, :-1] ^ mask[1:, :-1]) | (mask[:-1, :-1] ^ mask[1:, 1:])
    )
    found[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    found[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return found


def boundary_f(predicted: BoolArray, target: BoolArray) -> float:
    """Boundary accuracy F of two bool masks [H, W] (DAVIS 2016, section 4, as in its evaluation code).

    A boundary pixel of one mask is matched if the boundary of the other mask is within `tolerance_pixels`, which
    approximates a bipartite matching of pixels. F is the harmonic mean of precision, the share of matched boundary
    pixels of the prediction, and recall, that of the target. F is 1 if neither mask has a boundary, and 0 if only one
    of them has.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    box = mask_box(predicted | target)
    if box is None:
        return 1.0
    # The crop has a margin of one pixel, so that it holds all boundary pixels and cuts at the image borders only.
    left, top, right, bottom = box
    part = np.s_[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
    outlines = outline(predicted[part]), outline(target[part])
    if not all(one.any() for one in outlines):
        return 0.0 if any(one.any() for one in outlines) else 1.0
    reach = tolerance_pixels((target.shape[0], target.shape[1]))
    distances = import_extra("scipy.ndimage", "Scores of outlines need SciPy", "train").distance_transform_edt
    precision, recall = (
        np.count_nonzero(distances(~other)[one] <= reach) / np.count_nonzero(one)
        for one, other in (outlines, outlines[::-1])
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class TrackScores:
    """J and F of one tracked object.

    Attributes:
        j: region similarity (IoU) in each frame.
        f: boundary accuracy in each frame.
    """

    j: tuple[float, ...]
    f: tuple[float, ...]

    @property
    def mean_j(self) -> float | None:
        return mean(self.j)

    @property
    def mean_f(self) -> float | None:
        return mean(self.f)

    @property
    def mean_jf(self) -> float | None:
        """J&F, the mean of both means; None without frames."""
        return mean([*self.j, *self.f])  # j and f have the same length


def score_track(
    predicted: Iterable[BoolArray], targets: Iterable[BoolArray], *, from_the_start: bool = False
) -> TrackScores:
    """J and F of an object in its annotated frames, as in the evaluation code of DAVIS and SA-V.

    The first frame, whose mask is the prompt, and the last frame are not evaluated. SA-V's evaluation also ignores
    frames before the object is first visible in the annotation or the prediction. A later frame in which both masks are
    empty counts as 1.

    Args:
        predicted: bool [H, W], a mask for each frame in which the object is annotated, in their order. Two of them are
            in memory at a time.
        targets: bool [H, W], the annotated masks of the same frames.
        from_the_start: evaluate all frames between the first and the last if the object is visible in the first, as in
            DAVIS's evaluation.

    Returns:
        The scores of the evaluated frames. They are empty if the object is annotated in none of these frames; such
        objects are excluded from means.
    """
    scores: list[tuple[float, float]] = []
    is_there = counts = False
    waiting: tuple[BoolArray, BoolArray] | None = None  # held back, because the last frame is not evaluated
    for number, pair in enumerate(zip(predicted, targets, strict=True)):
        if number == 0:
            counts = is_there = from_the_start and bool(pair[1].any())
        if waiting is not None:
            mask, target = waiting
            is_there = is_there or bool(target.any())
            counts = counts or bool(target.any() or mask.any())
            if counts:
                scores.append((mask_iou(mask, target), boundary_f(mask, target)))
        waiting = pair if number else None
    if not is_there or not scores:
        return TrackScores((), ())
    j, f = zip(*scores, strict=True)
    return TrackScores(j, f)
