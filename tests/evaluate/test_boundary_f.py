from __future__ import annotations

import numpy as np
import pytest

from segany.core.arrays import BoolArray
from segany.evaluate.boundary_f import boundary_f, outline, score_track, tolerance_pixels


def square(left: int, top: int, side: int, size: int = 100) -> BoolArray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def outline_by_hand(mask: BoolArray) -> BoolArray:
    """Pixel by pixel: does it differ from its neighbors to the right, below, and right below?"""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            neighbors = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1 or x == width - 1:
                neighbors = neighbors[:1] if y == height - 1 else neighbors[1:2]
            found[y, x] = any(mask[y, x] != mask[v, u] for v, u in neighbors if v < height and u < width)
    return found


def f_by_hand(predicted: BoolArray, target: BoolArray) -> float:
    reach = np.ceil(0.008 * np.sqrt(target.shape[0] ** 2 + target.shape[1] ** 2))
    ours, theirs = (np.argwhere(outline_by_hand(mask)) for mask in (predicted, target))
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    apart = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=2))
    precision, recall = (apart.min(axis=1) <= reach).mean(), (apart.min(axis=0) <= reach).mean()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_tolerance_is_a_share_of_the_diagonal_rounded_up():
    assert tolerance_pixels((300, 400)) == 4  # 0.008 x 500, exactly
    assert tolerance_pixels((480, 854)) == 8  # 7.84


def test_the_outline_of_a_square():
    # 3 x 3 from (2, 2): a ring of 12 pixels around (1, 1) to (4, 4), without the part inside.
    found = outline(square(2, 2, 3, size=8))
    expected = np.zeros((8, 8), dtype=bool)
    expected[1:5, 1:5] = True
    expected[2:4, 2:4] = False
    assert np.array_equal(found, expected)


def test_there_is_no_outline_along_the_borders_of_the_image():
    assert not outline(np.ones((6, 7), dtype=bool)).any()


@pytest.mark.parametrize("seed", range(6))
def test_outlines_and_f_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    masks = []
    left, top, width, height = rng.integers(5, 40, 4)
    for _ in range(2):
        mask = np.zeros((70, 90), dtype=bool)
        dx, dy = rng.integers(-3, 4, 2)
        mask[top + dy : top + height + dy, left + dx : left + width + dx] = True
        masks.append(mask & (rng.random(mask.shape) > 0.02))
    assert np.array_equal(outline(masks[0]), outline_by_hand(masks[0]))
    assert boundary_f(*masks) == pytest.approx(f_by_hand(*masks), abs=1e-12)
    assert 0 < boundary_f(*masks) < 1


def test_f_forgives_as_much_as_the_tolerance():
    # Tolerance in 100 x 100: ceil(0.008 * 141.4) = 2 pixels.
    target = square(30, 30, 20)
    assert boundary_f(square(32, 30, 20), target) == 1.0
    # Moved by 3: of the 4 x 20 pixels of an outline (rows 29 and 49, columns 29 and 49 of 21 each, corners once),
    # of the left and right columns only those remain that are near the other's rows.
    assert boundary_f(square(33, 30, 20), target) == pytest.approx(f_by_hand(square(33, 30, 20), target), abs=1e-12)
    assert boundary_f(square(33, 30, 20), target) < 1


def test_f_of_a_large_square_and_one_twice_as_far_away_is_computed_by_hand():
    # Outlines of squares of side n have 4n pixels. 20 from 30 and 40 from 20, in the same middle: 10 apart.
    assert outline(square(30, 30, 20)).sum() == 80
    assert boundary_f(square(20, 20, 40), square(30, 30, 20)) == 0
    # Two squares of which the prediction has one: precision 1, recall 1/2.
    both = square(10, 10, 20) | square(60, 60, 20)
    assert boundary_f(square(10, 10, 20), both) == pytest.approx(2 / 3, abs=1e-15)


def test_f_of_empty_masks():
    nothing = np.zeros((20, 20), dtype=bool)
    assert boundary_f(nothing, nothing) == 1
    assert boundary_f(square(5, 5, 5, 20), nothing) == 0
    assert boundary_f(nothing, square(5, 5, 5, 20)) == 0
    assert boundary_f(np.ones((20, 20), dtype=bool), nothing) == 1  # a full image has no outline


def test_a_track_leaves_out_its_first_and_last_frame():
    target = square(30, 30, 20)
    wrong = np.zeros_like(target)
    half = square(30, 30, 20)
    half[:, 40:] = False  # 10 of 20 columns
    scores = score_track([wrong, target, half, wrong], [target] * 4)
    assert scores.j == (1.0, 0.5)
    assert scores.f == (1.0, pytest.approx(f_by_hand(half, target), abs=1e-12))
    assert scores.mean_j == 0.75
    assert scores.mean_jf == pytest.approx((0.75 + (1 + f_by_hand(half, target)) / 2) / 2, abs=1e-12)


def test_frames_before_an_object_appears_do_not_count_but_those_after_it_went_do():
    nothing, target = np.zeros((100, 100), dtype=bool), square(30, 30, 20)
    targets = [nothing, nothing, target, nothing, nothing, nothing]
    assert score_track([nothing, nothing, target, nothing, target, nothing], targets).j == (1.0, 1.0, 0.0)
    # Seen before it is there: that is wrong, and counts.
    assert score_track([nothing, target, target, nothing, nothing, nothing], targets).j == (0.0, 1.0, 1.0, 1.0)


def test_an_object_of_the_first_frame_alone_has_no_scores():
    nothing, target = np.zeros((100, 100), dtype=bool), square(30, 30, 20)
    scores = score_track([target] * 4, [target, nothing, nothing, nothing])
    assert (scores.j, scores.mean_j, scores.mean_jf) == ((), None, None)
