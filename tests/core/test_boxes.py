from __future__ import annotations

import numpy as np
import pytest

from segany.core.boxes import box_areas, is_box_near_crop_edge, nms
from segany.imaging.amg import build_point_grid, generate_crop_boxes


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def scores(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_better_of_two_overlapping_boxes_stays() -> None:
    overlapping = boxes((0, 0, 10, 10), (1, 0, 11, 10), (20, 20, 30, 30))
    assert nms(overlapping, scores(0.5, 0.9, 0.7), 0.7).tolist() == [1, 2]


def test_overlap_at_the_threshold_is_allowed() -> None:
    halves = boxes((0, 0, 2, 1), (0, 0, 1, 1))  # IoU 0.5
    assert nms(halves, scores(1, 0), 0.5).tolist() == [0, 1]
    assert nms(halves, scores(1, 0), 0.49).tolist() == [0]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = boxes((0, 0, 10, 10), (3, 0, 13, 10), (6, 0, 16, 10))
    assert nms(chain, scores(3, 2, 1), 0.5).tolist() == [0, 2]


def test_equal_scores_keep_their_order() -> None:
    same = boxes((0, 0, 10, 10), (0, 0, 10, 10), (50, 50, 60, 60))
    assert nms(same, scores(1, 1, 1), 0.7).tolist() == [0, 2]


def test_boxes_without_area_and_no_boxes() -> None:
    points = boxes((5, 5, 5, 5), (5, 5, 5, 5))
    assert nms(points, scores(1, 1), 0.7).tolist() == [0, 1]
    assert nms(boxes(), scores(), 0.7).tolist() == []
    assert box_areas(boxes((1, 2, 4, 6))).tolist() == [12]


def test_what_a_crop_cuts_off() -> None:
    crop, size_hw = (0, 0, 600, 500), (1000, 1200)
    given = boxes((100, 100, 300, 300), (100, 100, 595, 300), (0, 0, 300, 300), (100, 100, 300, 481))
    assert is_box_near_crop_edge(given, crop, size_hw).tolist() == [False, True, False, True]
    assert not is_box_near_crop_edge(given, (0, 0, 1200, 1000), size_hw).any()


def test_the_grid_is_of_centers_row_by_row() -> None:
    np.testing.assert_allclose(build_point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    assert build_point_grid(32).shape == (1024, 2)


def test_crops_cover_the_image_and_overlap() -> None:
    crops = generate_crop_boxes((534, 800), 2, 512 / 1500)
    assert [crop.layer for crop in crops] == [0] + [1] * 4 + [2] * 16
    assert crops[0].box_xyxy == (0, 0, 800, 534)
    assert crops[1].box_xyxy == (0, 0, 491, 358)  # as the official code has it for this size
    assert crops[1].size_hw == (358, 491)
    covered = np.zeros((534, 800), dtype=int)
    for crop in crops[1:5]:
        left, top, right, bottom = crop.box_xyxy
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1
    assert covered.max() == 4


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 5), (1, 5000)])
def test_crops_of_slivers_stay_inside(size_hw: tuple[int, int]) -> None:
    for crop in generate_crop_boxes(size_hw, 1, 512 / 1500):
        left, top, right, bottom = crop.box_xyxy
        assert 0 <= left <= right <= size_hw[1]
        assert 0 <= top <= bottom <= size_hw[0]
