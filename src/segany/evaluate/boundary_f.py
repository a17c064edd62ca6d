"""J and F of tracked objects: how well regions and their outlines agree (DAVIS)."""

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
"""How far outlines may lie apart and still agree, as a share of the image's diagonal."""


def tolerance_pixels(size_hw: SizeHW) -> int:
    """The same in pixels, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(*size_hw))


def outline(mask: BoolArray) -> BoolArray:
    """The outline of a mask [H, W], one pixel wide: bool [H, W].

    As in DAVIS's evaluation, these are the pixels that differ from the one to the right, the one below, or the
    one right below; in the last row to the right only, and in the last column below only. So the outline
    lies half a pixel up and left of the edges, and there is none along the borders of the image.
    """
    found = np.zeros_like(mask)
    found[:-1, :-1] = (
        (mask[:-1, :-1] ^ mask[:-1, 1:]) | (mask[:-1, :-1] ^ mask[1:, :-1]) | (mask[:-1, :-1] ^ mask[1:, 1:])
    )
    found[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    found[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return found


def boundary_f(predicted: BoolArray, target: BoolArray) -> float:
    """F of two masks [H, W]: how well their outlines agree (DAVIS 2016, section 4, as its evaluation computes it).

    A pixel of one outline is matched where the other outline passes within `tolerance_pixels`, which stands for
    a matching of pixel to pixel. F is the harmonic mean of precision, the share of matched pixels of the
    prediction's outline, and recall, that of the object's. Without an outline in either mask it is 1, with
    one in only one of them 0.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    box = mask_box(predicted | target)
    if box is None:
        return 1.0
    # One pixel more to all sides holds all of the outlines, and keeps the borders of the image where they are.
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
    """How well one object was tracked.

    Attributes:
        j: IoU in each frame.
        f: F in each frame.
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
        """J&F: the mean of both means. None where no frame counted."""
        return mean([*self.j, *self.f])  # as many of both


def score_track(
    predicted: Iterable[BoolArray], targets: Iterable[BoolArray], *, from_the_start: bool = False
) -> TrackScores:
    """J and F of an object in its annotated frames, as the evaluators of DAVIS and SA-V have it.

    The first frame, which the model was given, and the last one do not count. Frames before the object is seen for
    the first time, in the annotation or the prediction, do not count either in SA-V's evaluation. Frames in which the
    object is rightly missing later on count as 1.

    Args:
        predicted: a mask [H, W] for each frame in which the object is annotated, in their order. Two are held at a
            time.
        targets: the annotation, as many.
        from_the_start: count every frame between the first and the last where the object is annotated in the first:
            DAVIS's evaluation.

    Returns:
        No frames at all where the object is annotated in none of those that count; such objects are left out
        of means.
    """
    scores: list[tuple[float, float]] = []
    is_there = counts = False
    waiting: tuple[BoolArray, BoolArray] | None = None  # it is not the last if another one comes
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
