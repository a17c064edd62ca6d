"""Masks to polygons and back, exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segany.core.polygons import Polygon, mask_to_polygons, polygons_to_mask, signed_area


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def check(mask: np.ndarray) -> tuple[Polygon, ...]:
    """What must hold for the polygons of any mask."""
    polygons = mask_to_polygons(mask)
    np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)
    assert sum(polygon.area for polygon in polygons) == mask.sum()
    for polygon in polygons:
        assert signed_area(polygon.exterior) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)
        part = polygons_to_mask([polygon], mask.shape)
        assert len(mask_to_polygons(part)) == 1  # one polygon is one connected part, its own holes included
        for ring in polygon.rings:
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)  # it does not touch itself
            steps = np.diff(ring, axis=0, append=ring[:1])
            assert ((steps == 0).sum(axis=1) == 1).all()  # along the cracks
            assert ((steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)).all()  # and every point a corner
    return polygons


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=300)
def test_polygons_enclose_any_mask_exactly(mask: np.ndarray) -> None:
    check(mask)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.8))
@settings(max_examples=30)
def test_polygons_enclose_noise_exactly(seed: int, share: float) -> None:
    check(np.random.default_rng(seed).random((17, 23)) < share)


def test_one_pixel_is_a_unit_square() -> None:
    (polygon,) = check(mask_of("...", ".#.", "..."))
    assert polygon.exterior.tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert polygon.holes == ()


def test_a_full_mask_is_the_outline_of_the_image() -> None:
    (polygon,) = check(np.ones((4, 7), dtype=np.bool_))
    assert polygon.exterior.tolist() == [[0, 0], [7, 0], [7, 4], [0, 4]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 4)])
def test_an_empty_mask_has_no_polygons(shape: tuple[int, int]) -> None:
    assert check(np.zeros(shape, dtype=np.bool_)) == ()


@pytest.mark.parametrize(
    ("rows", "holes"),
    [
        (("#####", "#...#", "#.#.#", "#...#", "#####"), [1, 0]),  # an island in a hole
        (("####", "#.##", "##.#", "####"), [2]),  # two holes that touch
        (("##..", "##..", "..##", "..##"), [0, 0]),  # two parts that touch
        ((".##", "#.#", "###"), [1]),  # a hole that touches the outside
        (("#.#", ".#.", "#.#"), [0] * 5),
        (("#######", "#.#.#.#", "#######"), [3]),
        (("###.###", "#.#.#.#", "#######", "#.#.#.#", "###.###"), [4]),
        (("######", "#.#..#", "#.##.#", "#....#", "######"), [1]),  # a peninsula inside a hole
    ],
)
def test_parts_and_holes(rows: tuple[str, ...], holes: list[int]) -> None:
    assert [len(polygon.holes) for polygon in check(mask_of(*rows))] == holes


def test_holes_belong_to_the_part_around_them() -> None:
    left, right = check(mask_of("####.####", "#..#.#..#", "####.####"))
    assert left.holes[0][:, 0].max() == 3
    assert right.holes[0][:, 0].min() == 6


def test_views_and_frozen_masks() -> None:
    mask = np.random.default_rng(0).random((20, 30)) < 0.6
    view = mask[::-2, 3:].T
    view.flags.writeable = False
    check(view)


def test_fills_polygons_with_corners_anywhere() -> None:
    triangle = Polygon(np.array([[-5.0, -5.0], [12.0, -5.0], [-5.0, 12.0]]))
    y, x = np.mgrid[:6, :8] + 0.5
    np.testing.assert_array_equal(polygons_to_mask([triangle], (6, 8)), x + y < 7)
    assert not polygons_to_mask([Polygon(triangle.exterior - 50)], (6, 8)).any()
    assert not polygons_to_mask([], (6, 8)).any()


def test_area_counts_holes_out() -> None:
    (polygon,) = mask_to_polygons(mask_of("###", "#.#", "###"))
    assert polygon.area == 8
    assert len(polygon.rings) == 2


def test_a_part_cut_out_of_a_mask_has_the_same_outline() -> None:
    mask = np.zeros((20, 30), dtype=np.bool_)
    mask[5:9, 7:20] = mask[12:15, 9:11] = True
    whole, part = mask_to_polygons(mask), mask_to_polygons(mask[4:18, 6:22], (6, 4))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one.exterior, other.exterior)
