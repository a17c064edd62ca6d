"""Average recall of masks that were found without prompts: how many of the annotated objects are among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segany.core.arrays import FloatArray, IntArray
from segany.core.errors import check
from segany.core.rle import Rle

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""An object is found at a threshold where a mask overlaps it by at least that IoU (COCO)."""

LIMITS = (10, 100, 1000)
"""How many masks an image may propose."""

AREAS = {"all": (0, 10**10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**10)}
"""Sizes of objects in pixels, both ends included, as COCO has them."""


@dataclass(frozen=True, eq=False)
class RecallCounts:
    """What average recall is made of. Counts of several images are added.

    Attributes:
        objects: int64 [4], objects of each of `AREAS`.
        found: int64 [4, 3, 10], how many of them were found, by area, limit and IoU.
    """

    objects: IntArray
    found: IntArray

    @classmethod
    def none(cls) -> RecallCounts:
        """Of no images."""
        shape = (len(AREAS), len(LIMITS), len(IOU_THRESHOLDS))
        return cls(np.zeros(shape[:1], dtype=np.int64), np.zeros(shape, dtype=np.int64))

    def __add__(self, other: RecallCounts) -> RecallCounts:
        return RecallCounts(self.objects + other.objects, self.found + other.found)

    def average_recall(self, limit: int, area: str = "all") -> float | None:
        """AR@limit: recall of the objects of a size, averaged over the IoU thresholds. None where there are none.

        Args:
            limit: one of `LIMITS`.
            area: one of `AREAS`.

        Raises:
            ConfigError: it is none of them.
        """
        check(limit in LIMITS, f"limit must be one of {LIMITS}, got {limit}.")
        check(area in AREAS, f"area must be one of {list(AREAS)}, got {area!r}.")
        row = list(AREAS).index(area)
        if not self.objects[row]:
            return None
        return float(self.found[row, LIMITS.index(limit)].mean() / self.objects[row])


def mask_overlaps(proposals: Sequence[Rle], objects: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """IoU of masks with each other: [D, G]."""
    return _overlaps(list(proposals), list(objects))


def box_overlaps(proposals_xyxy: FloatArray, objects_xyxy: FloatArray) -> npt.NDArray[np.float64]:
    """IoU of half-open boxes [D, 4] and [G, 4] with each other: [D, G]."""
    boxes = [np.asarray(xyxy, dtype=np.float64).reshape(-1, 4) for xyxy in (proposals_xyxy, objects_xyxy)]
    return _overlaps(*(np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1) for xyxy in boxes))


def _overlaps(proposals: Any, objects: Any) -> npt.NDArray[np.float64]:
    if not len(proposals) or not len(objects):
        return np.zeros((len(proposals), len(objects)))
    return np.asarray(coco_mask.iou(proposals, objects, [0] * len(objects)), dtype=np.float64)


def count_found(overlaps: npt.NDArray[np.float64], areas: npt.ArrayLike) -> RecallCounts:
    """Match proposals to objects of an image as COCO does, without regard to categories.

    The proposals choose one after the other, the best first. Each takes the object it overlaps most among
    those that it overlaps enough and that no other has taken; of equal ones the last.

    Args:
        overlaps: [D, G], IoU of the proposals, best first, with the objects.
        areas: [G], of the objects in pixels, as annotated.
    """
    object_areas = np.asarray(areas)
    counts = RecallCounts.none()
    for row, (low, high) in enumerate(AREAS.values()):
        wanted = (object_areas >= low) & (object_areas <= high)
        counts.objects[row] = np.count_nonzero(wanted)
        taken_by = _taken_by(overlaps[: max(LIMITS), wanted])
        for column, limit in enumerate(LIMITS):
            counts.found[row, column] = np.count_nonzero(taken_by < limit, axis=1)
    return counts


def _taken_by(overlaps: npt.NDArray[np.float64]) -> IntArray:
    """Which proposal takes each object at each threshold, int64 [10, G]; a number beyond all limits where none does."""
    nobody = max(LIMITS)
    taken_by = np.full((len(IOU_THRESHOLDS), overlaps.shape[1]), nobody, dtype=np.int64)
    every_row = np.arange(len(IOU_THRESHOLDS))
    for number in np.flatnonzero((overlaps >= IOU_THRESHOLDS[0]).any(axis=1)).tolist():
        possible = (overlaps[number] >= IOU_THRESHOLDS[:, None]) & (taken_by == nobody)  # [10, G]
        rated = np.where(possible, overlaps[number], -1)[:, ::-1]  # reversed: argmax takes the first of equal ones
        choice = overlaps.shape[1] - 1 - rated.argmax(axis=1)
        rows = possible[every_row, choice]
        taken_by[every_row[rows], choice[rows]] = number
    return taken_by
