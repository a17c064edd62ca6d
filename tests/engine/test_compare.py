"""Which model is better beyond noise."""

from __future__ import annotations

import numpy as np
import pytest

from segany import ConfigError
from segany.engine import compare


def scores(mean: float, images: int = 20, seed: int = 0) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {str(number): list(rng.normal(mean, 0.1, 1 + number % 3)) for number in range(images)}


def test_a_clear_gain_is_better_and_a_clear_loss_is_not() -> None:
    low, high = scores(0.6), scores(0.8, seed=1)
    assert compare(low, high).is_better
    assert not compare(high, low).is_better
    assert compare(low, high).objects == sum(map(len, low.values()))
    assert compare(low, high).difference == pytest.approx(-compare(high, low).difference)


def test_equal_models_and_noise_are_not_better() -> None:
    one = scores(0.7)
    assert not compare(one, one).is_better
    promoted = sum(compare(scores(0.7, seed=2 * seed), scores(0.7, seed=2 * seed + 1)).is_better for seed in range(60))
    assert promoted <= 8  # of 60, one in twenty by chance


def test_a_gain_in_one_image_alone_is_noise() -> None:
    one = scores(0.7)
    lucky = {**one, "0": [score + 5 for score in one["0"]]}
    found = compare(one, lucky)
    assert found.difference > 0.1
    assert not found.is_better


def test_the_interval_holds_the_difference_and_grows_with_confidence() -> None:
    one, other = scores(0.6), scores(0.65, seed=1)
    narrow, wide = compare(one, other, 0.8), compare(one, other, 0.99)
    assert wide.interval[0] < narrow.interval[0] < narrow.difference < narrow.interval[1] < wide.interval[1]
    assert compare(one, other) == compare(one, other)


def test_other_objects_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same objects"):
        compare({"a": [0.5]}, {"a": [0.5, 0.6]})
    with pytest.raises(ConfigError, match="no object"):
        compare({"a": []}, {"a": []})
