"""Metrics of masks: IoU, and number of clicks (NoC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray
from segany.core.errors import check

MAX_CLICKS = 20
"""Largest number of clicks on an object in RITM's protocol."""


def mask_iou(predicted: BoolArray, target: BoolArray) -> float:
    """Intersection over union of two bool masks [H, W]; 1 if both are empty (DAVIS's region similarity J)."""
    shared = int(np.count_nonzero(predicted & target))
    union = int(np.count_nonzero(predicted)) + int(np.count_nonzero(target)) - shared
    return shared / union if union else 1.0


def mean(values: Sequence[float]) -> float | None:
    """The mean of numbers; None for an empty sequence."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def clicks_needed(ious: Sequence[float], quality: float) -> int | None:
    """The number of clicks that first reach an IoU; None if no number of clicks does.

    Args:
        ious: IoU after each click.
        quality: the IoU to reach, in 0..1.
    """
    return next((count for count, iou in enumerate(ious, start=1) if iou >= quality), None)


@dataclass(frozen=True)
class ClickCount:
    """The number of clicks to reach an IoU: NoC@quality (RITM, section 5.1).

    Attributes:
        quality: the IoU to reach, in 0..1.
        mean: mean number of clicks. Objects that do not reach the IoU count with the largest number of clicks.
        failures: share of the objects that do not reach the IoU. RITM's code also counts objects that reach it with
            the last click.
    """

    quality: float
    mean: float
    failures: float


def count_clicks(ious: Sequence[Sequence[float]], quality: float, max_clicks: int = MAX_CLICKS) -> ClickCount | None:
    """Compute NoC@quality.

    Args:
        ious: for each object the IoU after each click, which may end where `quality` is reached.
        quality: the IoU to reach, in 0..1.
        max_clicks: number of clicks of objects that do not reach it.

    Returns:
        The number of clicks; None without objects.

    Raises:
        ConfigError: `quality` or `max_clicks` is out of range.
    """
    check(0 <= quality <= 1, f"quality must lie in 0..1, got {quality}.")
    check(max_clicks >= 1, f"max_clicks must be at least 1, got {max_clicks}.")
    if not ious:
        return None
    counts = [clicks_needed(list(one)[:max_clicks], quality) for one in ious]
    failed = sum(count is None for count in counts)
    mean_count = sum(max_clicks if count is None else count for count in counts) / len(counts)
    return ClickCount(quality, mean_count, failed / len(counts))
