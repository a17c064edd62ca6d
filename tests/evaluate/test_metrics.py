from __future__ import annotations

import numpy as np
import pytest

from segany.core.errors import ConfigError
from segany.evaluate.metrics import clicks_needed, count_clicks, mask_iou, mean


def test_iou_is_shared_pixels_over_all_pixels():
    one, other = np.zeros((2, 8, 8), dtype=bool)
    one[:2, :4] = True  # 8
    other[1:3, 2:6] = True  # 8, of which 2 are shared
    assert mask_iou(one, other) == 2 / 14
    assert mask_iou(one, one) == 1
    assert mask_iou(one, np.zeros_like(one)) == 0


def test_two_empty_masks_agree():
    assert mask_iou(np.zeros((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)) == 1


def test_the_mean_of_nothing_is_no_number():
    assert mean([]) is None
    assert mean([0.25, 0.75]) == 0.5


def test_clicks_needed_counts_from_one_and_to_the_first_that_is_enough():
    ious = [0.5, 0.8, 0.79, 0.9]
    assert clicks_needed(ious, 0.8) == 2
    assert clicks_needed(ious, 0.85) == 4
    assert clicks_needed(ious, 0.95) is None


def test_number_of_clicks_takes_failures_for_the_most_there_may_be():
    ious = [[0.5, 0.9], [0.85], [0.1] * 20, [0.1] * 19 + [0.9]]
    found = count_clicks(ious, 0.85)
    assert found is not None
    assert found.mean == (2 + 1 + 20 + 20) / 4
    assert found.failures == 1 / 4  # the last object gets there with the last click
    few = count_clicks(ious, 0.85, max_clicks=5)
    assert few is not None
    assert (few.mean, few.failures) == ((2 + 1 + 5 + 5) / 4, 0.5)
    assert count_clicks([], 0.85) is None


def test_a_quality_in_percent_is_refused():
    with pytest.raises(ConfigError, match=r"0\.\.1"):
        count_clicks([[0.5]], 85)
