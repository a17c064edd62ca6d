from __future__ import annotations

import numpy as np
import pytest

from segany.core.arrays import BoolArray
from segany.evaluate.clicks import Click, ritm_click, sam_click

NOTHING = np.zeros((12, 16), dtype=bool)


def rectangle(top: int, bottom: int, left: int, right: int) -> BoolArray:
    mask = NOTHING.copy()
    mask[top:bottom, left:right] = True
    return mask


def depths(region: BoolArray) -> np.ndarray:
    """How far every pixel of a region is from the nearest one that is none of it, by trying them all."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    found = np.zeros(region.shape)
    for y, x in np.argwhere(region):
        found[y, x] = np.sqrt(((outside - (y + 1, x + 1)) ** 2).sum(axis=1)).min()
    return found


@pytest.mark.parametrize("rule", [sam_click, ritm_click])
def test_the_first_click_is_in_the_middle_of_the_object(rule):
    # 5 x 5 pixels from (3, 2): only the middle is 3 from the outside.
    assert rule(rectangle(2, 7, 3, 8), NOTHING) == Click(5, 4, 1)


@pytest.mark.parametrize("rule", [sam_click, ritm_click])
def test_the_border_of_the_image_is_a_boundary(rule):
    # At the left border, 5 wide: were it no boundary, the leftmost column would be deepest.
    assert rule(rectangle(0, 12, 0, 5), NOTHING) == Click(2, 2, 1)


@pytest.mark.parametrize("rule", [sam_click, ritm_click])
def test_of_equally_deep_pixels_the_topmost_and_then_the_leftmost_is_clicked(rule):
    # 4 x 4: the four in the middle are 2 deep.
    assert rule(rectangle(4, 8, 6, 10), NOTHING) == Click(7, 5, 1)


@pytest.mark.parametrize("rule", [sam_click, ritm_click])
def test_what_is_overstepped_is_clicked_as_background(rule):
    target = rectangle(4, 6, 1, 4)
    assert rule(target, target | rectangle(2, 9, 7, 14)) == Click(10, 5, 0)


def test_both_papers_part_where_missed_and_overstepped_pixels_touch():
    target, predicted = rectangle(4, 8, 1, 7), rectangle(4, 8, 7, 15)
    # Missed are columns 1 to 6, overstepped 7 to 14, rows 4 to 7. Together 14 x 4 pixels are wrong, 2 deep from
    # column 2 on; apart, too, but the overstepped region wins a tie, and its first pixel 2 deep is in column 8.
    assert sam_click(target, predicted) == Click(2, 5, 1)
    assert ritm_click(target, predicted) == Click(8, 5, 0)
    # A prediction that ends earlier: the wrong region is deepest across the boundary of the object.
    target, predicted = rectangle(0, 5, 2, 4), rectangle(0, 5, 4, 7)
    assert sam_click(target, predicted) == Click(4, 2, 0)
    assert depths(target ^ predicted)[2, 4] == 3
    assert ritm_click(target, predicted) == Click(5, 1, 0)


def test_ritm_never_clicks_a_pixel_twice():
    target = rectangle(2, 7, 3, 8)
    assert ritm_click(target, NOTHING, [Click(5, 4, 1)]) == Click(4, 3, 1)  # of the ring around it
    assert sam_click(target, NOTHING, [Click(5, 4, 1)]) == Click(5, 4, 1)
    lone = rectangle(3, 4, 3, 4)
    assert ritm_click(lone, NOTHING, [Click(3, 3, 1)]) is None


@pytest.mark.parametrize("rule", [sam_click, ritm_click])
def test_a_perfect_mask_leaves_nothing_to_click(rule):
    target = rectangle(2, 7, 3, 8)
    assert rule(target, target) is None


@pytest.mark.parametrize("seed", range(8))
def test_clicks_are_where_trying_all_pixels_finds_them(seed):
    rng = np.random.default_rng(seed)
    target, predicted = (rng.random((12, 16)) > 0.3 for _ in range(2))
    wrong = depths(target ^ predicted)
    y, x = np.unravel_index(wrong.argmax(), wrong.shape)
    assert sam_click(target, predicted) == Click(x, y, int(target[y, x]))
    missed, overstepped = depths(target & ~predicted), depths(predicted & ~target)
    chosen, label = (missed, 1) if missed.max() > overstepped.max() else (overstepped, 0)
    y, x = np.unravel_index(chosen.argmax(), chosen.shape)
    assert ritm_click(target, predicted) == Click(x, y, label)
