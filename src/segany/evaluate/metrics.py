"""How good masks of objects are, and how many clicks they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray
from segany.core.errors import check

MAX_CLICKS = 20
"""Where simulations of clicks give up, in RITM's protocol and those it compares to."""


def mask_iou(predicted: BoolArray, target: BoolArray) -> float:
    """Intersection over union of two masks [H, W]; 1 where both are empty (DAVIS's region similarity J)."""
    shared = int(np.count_nonzero(predicted & target))
    union = int(np.count_nonzero(predicted)) + int(np.count_nonzero(target)) - shared
    return shared / union if union else 1.0


def mean(values: Sequence[float]) -> float | None:
    """The mean of numbers; None of none, which no number could stand for."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def clicks_needed(ious: Sequence[float], quality: float) -> int | None:
    """The number of clicks after which an IoU was reached for the first time; None where it never was.

    Args:
        ious: after each click.
        quality: the IoU, in 0..1.
    """
    return next((count for count, iou in enumerate(ious, start=1) if iou >= quality), None)


@dataclass(frozen=True)
class ClickCount:
    """How many clicks objects take to an IoU: NoC@quality (RITM, section 5.1).

    Attributes:
        quality: the IoU, in 0..1.
        mean: number of clicks on average. Objects that never get there count with the most clicks there may be.
        failures: share of the objects that never get there. RITM's code also counts those as failures that
            get there with the very last click.
    """

    quality: float
    mean: float
    failures: float


def count_clicks(ious: Sequence[Sequence[float]], quality: float, max_clicks: int = MAX_CLICKS) -> ClickCount | None:
    """NoC@quality of objects.

    Args:
        ious: of each object, after each of its clicks; simulations may stop where the IoU is reached.
        quality: in 0..1.
        max_clicks: what counts where it is not reached.

    Returns:
        None where there are no objects.

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
