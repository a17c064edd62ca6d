"""Whether one model is better than another: paired bootstrap over images (Efron and Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segany.core.errors import check

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """A comparison of two models on the same objects.

    Attributes:
        difference: mean score of the candidate less that of the incumbent.
        interval: of that difference, two-sided at twice the error of `confidence`.
        confidence: with which the candidate must be better.
        objects, images: number of each.
    """

    difference: float
    interval: tuple[float, float]
    confidence: float
    objects: int
    images: int

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better beyond noise."""
        return self.interval[0] > 0


def compare(
    incumbent: Mapping[str, Sequence[float]], candidate: Mapping[str, Sequence[float]], confidence: float = 0.95
) -> Comparison:
    """Compare the scores of two models. Images are resampled, because the objects of one are alike.

    Args:
        incumbent: scores of the objects of each image, by its name.
        candidate: scores of the same objects, in the same order.
        confidence: one-sided.

    Raises:
        ConfigError: the objects differ, or there are none.
    """
    same = {name: len(scores) for name, scores in incumbent.items()} == {
        name: len(scores) for name, scores in candidate.items()
    }
    check(same, "Two models must be compared on the same objects.")
    names = [name for name, scores in incumbent.items() if len(scores)]
    check(len(names) > 0, "There is no object to compare models on.")
    sums = np.array([np.sum(candidate[name]) - np.sum(incumbent[name]) for name in names])
    counts = np.array([len(incumbent[name]) for name in names])
    rng = np.random.default_rng(0)  # the same decision for the same scores
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 500):
        drawn = rng.integers(0, len(names), (500, len(names)))
        means[start : start + 500] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [1 - confidence, confidence])
    return Comparison(
        float(sums.sum() / counts.sum()), (float(low), float(high)), confidence, int(counts.sum()), len(names)
    )
