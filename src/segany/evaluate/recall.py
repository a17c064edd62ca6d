"""Average recall of object proposals, as in COCO's evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segany.core.arrays import FloatArray, IntArray
from segany.core.errors import check

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds of average recall: an object is found at a threshold if a proposal has at least that IoU (COCO)."""

LIMITS = (10, 100, 1000)
"""Numbers of proposals per image."""

AREAS = {"all": (0, 10**10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**10)}
"""Ranges of the areas of objects in pixels, both ends included, as in COCO's evaluation."""


@dataclass(frozen=True, eq=False)
class RecallCounts:
    """Counts of objects for average recall, which can be added over images.

    Attributes:
        objects: int64 [4], number of objects in each of `AREAS`.
        found: int64 [4, 3, 10], number of objects found, by area, limit and IoU threshold.
    """

    objects: IntArray
    found: IntArray

    @classmethod
    def none(cls) -> RecallCounts:
        """The counts of no images, all zero."""
        shape = (len(AREAS), len(LIMITS), len(IOU_THRESHOLDS))
        return cls(np.zeros(shape[:1], dtype=np.int64), np.zeros(shape, dtype=np.int64))

    def __add__(self, other: RecallCounts) -> RecallCounts:
        return RecallCounts(self.objects + other.objects, self.found + other.found)

    def average_recall(self, limit: int, area: str = "all") -> float | None:
        """AR@limit: recall averaged over the IoU thresholds; None without objects in the area range.

        Args:
            limit: number of proposals per image, one of `LIMITS`.
            area: area range, one of `AREAS`.

        Raises:
            ConfigError: `limit` or `area` is unknown.
        """
        check(limit in LIMITS, f"limit must be one of {LIMITS}, got {limit}.")
        check(area in AREAS, f"area must be one of {list(AREAS)}, got {area!r}.")
        row = list(AREAS).index(area)
        if not self.objects[row]:
            return None
        return float(self.found[row, LIMITS.index(limit)].mean() / self.objects[row])


def pairwise_box_iou(proposals_xyxy: FloatArray, objects_xyxy: FloatArray) -> npt.NDArray[np.float64]:
    """Pairwise IoU, float64 [D, G], of half-open boxes [D, 4] and [G, 4]."""
    if not len(proposals_xyxy) or not len(objects_xyxy):
        return np.zeros((len(proposals_xyxy), len(objects_xyxy)))
    boxes = [np.asarray(xyxy, dtype=np.float64).reshape(-1, 4) for xyxy in (proposals_xyxy, objects_xyxy)]
    xywh = [np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1) for xyxy in boxes]
    return np.asarray(coco_mask.iou(*xywh, [0] * len(objects_xyxy)), dtype=np.float64)


def count_found(overlaps: npt.NDArray[np.float64], areas: npt.ArrayLike) -> RecallCounts:
    """Match proposals to the objects of an image greedily, as in COCO's evaluation, and count the matched objects.

    In the order of their ranks, each proposal is matched to the unmatched object with the highest IoU that is at least
    the threshold; of objects with the same IoU, to the last. Categories are ignored.

    Args:
        overlaps: float64 [D, G], IoU of the proposals, in descending order of their ranks, with the objects.
        areas: [G], annotated areas of the objects in pixels.
    """
    object_areas = np.asarray(areas)
    counts = RecallCounts.none()
    for row, (low, high) in enumerate(AREAS.values()):
        wanted = (object_areas >= low) & (object_areas <= high)
        counts.objects[row] = np.count_nonzero(wanted)
        taken_by = matched_ranks(overlaps[: max(LIMITS), wanted])
        for column, limit in enumerate(LIMITS):
            counts.found[row, column] = np.count_nonzero(taken_by < limit, axis=1)
    return counts


def matched_ranks(overlaps: npt.NDArray[np.float64]) -> IntArray:
    """Match proposals to objects as `count_found` does.

    Args:
        overlaps: float64 [D, G], IoU of at most `max(LIMITS)` proposals, in descending order of their ranks, with the
            objects.

    Returns:
        The rank of the proposal that is matched to each object at each threshold, int64 [10, G]; `max(LIMITS)` for
        none.
    """
    nobody = max(LIMITS)
    taken_by = np.full((len(IOU_THRESHOLDS), overlaps.shape[1]), nobody, dtype=np.int64)
    every_row = np.arange(len(IOU_THRESHOLDS))
    for number in np.flatnonzero((overlaps >= IOU_THRESHOLDS[0]).any(axis=1)).tolist():
        possible = (overlaps[number] >= IOU_THRESHOLDS[:, None]) & (taken_by == nobody)  # [10, G]
        rated = np.where(possible, overlaps[number], -1)[:, ::-1]  # reversed, because argmax returns the first maximum
        choice = overlaps.shape[1] - 1 - rated.argmax(axis=1)
        rows = possible[every_row, choice]
        taken_by[every_row[rows], choice[rows]] = number
    return taken_by
