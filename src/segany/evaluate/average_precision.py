"""Average precision of class-agnostic proposals, as in COCO's evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, FloatArray
from segany.evaluate.recall import IOU_THRESHOLDS, matched_ranks

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which the interpolated precision is averaged (COCO)."""


def matched_proposals(overlaps: npt.NDArray[np.float64]) -> BoolArray:
    """Match the proposals of an image as `count_found` does, and tell which of them match an object.

    Args:
        overlaps: float64 [D, G], IoU of the proposals, in descending order of their ranks, with the objects.

    Returns:
        bool [10, D], for each of `IOU_THRESHOLDS`.
    """
    ranks, matched = matched_ranks(overlaps), np.zeros((len(IOU_THRESHOLDS), len(overlaps)), dtype=np.bool_)
    rows, objects = np.nonzero(ranks < len(overlaps))
    matched[rows, ranks[rows, objects]] = True
    return matched


def average_precision(scores: Sequence[FloatArray], matched: Sequence[BoolArray], objects: int) -> float | None:
    """The average precision AP, averaged over the IoU thresholds; None without objects.

    Args:
        scores: scores of the proposals of each image, [D] each, in descending order.
        matched: which of them match an object, from `matched_proposals`, [10, D] each.
        objects: number of objects in all images.
    """
    if objects == 0:
        return None
    if not any(map(len, scores)):
        return 0.0
    order = np.argsort(-np.concatenate(scores), kind="stable")
    true = np.cumsum(np.concatenate(matched, axis=1)[:, order], axis=1)
    precision = true / np.arange(1, len(order) + 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)  # recalls that are not reached
    reached = [np.searchsorted(row, RECALLS * objects) for row in true]
    return float(np.mean([row[first] for row, first in zip(best, reached, strict=True)]))
