"""Connected components on runs, against a flood fill and against OpenCV."""

import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segany.core.errors import ConfigError
from segany.imaging.components import find_components, remove_small_regions

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


def flood_fill(mask: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Numbers of components, -1 outside of the mask, and their areas; pixel by pixel."""
    numbers = np.full(mask.shape, -1)
    areas: list[int] = []
    for seed in zip(*np.nonzero(mask), strict=True):
        if numbers[seed] >= 0:
            continue
        numbers[seed] = len(areas)
        pending, area = [seed], 0
        while pending:
            row, column = pending.pop()
            area += 1
            for y in range(max(0, row - 1), min(mask.shape[0], row + 2)):
                for x in range(max(0, column - 1), min(mask.shape[1], column + 2)):
                    if mask[y, x] and numbers[y, x] < 0:
                        numbers[y, x] = len(areas)
                        pending.append((y, x))
        areas.append(area)
    return numbers, areas


def spiral(size: int) -> np.ndarray:
    """One component that winds inwards, a pixel wide."""
    mask = np.zeros((size, size), dtype=np.bool_)
    y, x, (dy, dx) = 0, 0, (0, 1)
    mask[0, 0] = True
    for length in [size - 1, *(n for n in range(size - 1, 1, -2) for _ in range(2))]:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
    return mask


@given(masks)
@example(np.ones((1, 1), dtype=np.bool_))
@example(np.eye(5, dtype=np.bool_))  # corners connect
@example(spiral(9))
def test_components_are_those_of_a_flood_fill(mask: np.ndarray) -> None:
    numbers, areas = flood_fill(mask)
    found = find_components(mask)
    painted = np.full(mask.size, -1)
    for start, stop, component in zip(found.start, found.stop, found.component, strict=True):
        painted[start:stop] = component
    np.testing.assert_array_equal(painted.reshape(mask.shape), numbers)
    assert found.areas.tolist() == areas


@given(masks, st.integers(0, 12))
def test_small_islands_go(mask: np.ndarray, limit: int) -> None:
    numbers, areas = flood_fill(mask)
    large = [number for number, area in enumerate(areas) if area >= limit]
    cleaned, changed = remove_small_regions(mask, limit, "islands")
    np.testing.assert_array_equal(cleaned, np.isin(numbers, large))
    assert changed == (len(large) < len(areas))


@given(masks, st.integers(0, 12))
def test_small_holes_are_filled(mask: np.ndarray, limit: int) -> None:
    numbers, areas = flood_fill(~mask)
    small = [number for number, area in enumerate(areas) if area < limit]
    cleaned, changed = remove_small_regions(mask, limit, "holes")
    np.testing.assert_array_equal(cleaned, mask | np.isin(numbers, small))
    assert changed == bool(small)


@pytest.mark.parametrize("mode", ["holes", "islands"])
@pytest.mark.parametrize("density", [0.02, 0.4, 0.6, 0.98])
def test_components_agree_with_opencv(mode: str, density: float) -> None:
    cv2 = pytest.importorskip("cv2")
    mask = np.random.default_rng(1).random((120, 90)) < density
    work = (mask ^ (mode == "holes")).astype(np.uint8)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(work, 8)
    areas = statistics[:, -1]
    assert sorted(find_components(work > 0).areas) == sorted(areas[1:])
    for limit in (1, 3, 20, 500):
        small = np.isin(regions, np.flatnonzero(areas[1:] < limit) + 1)
        cleaned, changed = remove_small_regions(mask, limit, mode)
        np.testing.assert_array_equal(cleaned, mask ^ small)
        assert changed == small.any()


def test_a_mask_of_only_small_islands_becomes_empty() -> None:
    """The official code keeps the largest of them."""
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[2:5, 2:5] = mask[10, 10] = True
    cleaned, changed = remove_small_regions(mask, 10, "islands")
    assert changed
    assert not cleaned.any()


@pytest.mark.parametrize("mode", ["holes", "islands"])
def test_nothing_to_remove_gives_the_mask_itself(mode: str) -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[5:15, 5:15] = True
    cleaned, changed = remove_small_regions(mask, 100, mode)
    assert cleaned is mask
    assert not changed


def test_the_mask_given_is_not_changed() -> None:
    mask = np.zeros((4, 30), dtype=np.bool_)
    mask[1, 1] = mask[2, 10:25] = True
    for view in (mask, mask.T, np.asfortranarray(mask), mask[:, ::-1]):
        view.flags.writeable = False
        cleaned, _ = remove_small_regions(view, 5, "islands")
        assert cleaned.sum() == 15
        assert view.sum() == 16


def test_empty_masks_have_no_components() -> None:
    for shape in [(0, 0), (0, 5), (5, 0), (5, 5)]:
        empty = np.zeros(shape, dtype=np.bool_)
        assert find_components(empty).areas.size == 0
        assert remove_small_regions(empty, 100, "islands") == (empty, False)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ConfigError, match="'holes' or 'islands', got 'both'"):
        remove_small_regions(np.zeros((2, 2), dtype=np.bool_), 1, "both")


def test_long_winding_components_stay_fast() -> None:
    mask = spiral(401)
    start = time.perf_counter()
    assert len(find_components(mask).areas) == 1
    assert time.perf_counter() - start < 1  # 0.01 s on a quiet machine
