"""The label of the nearest labeled pixel, against a search of all of them."""

import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segany.core import label_map as nearest
from segany.core.label_map import fill_nearest

labels = arrays(
    np.int32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3])
)


def brute_force(given: np.ndarray) -> np.ndarray:
    """Every pixel against every label; of equally near ones the leftmost, then the uppermost."""
    columns, rows = np.nonzero(given.T)
    if not len(rows):
        return given.copy()
    y, x = np.mgrid[: given.shape[0], : given.shape[1]]
    distances = (y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2
    chosen = distances.argmin(axis=-1)  # the first of equals, and nonzero lists them column by column
    return given[rows[chosen], columns[chosen]]


@given(labels)
@example(np.zeros((1, 1), dtype=np.int32))
@example(np.array([[0, 0, 7, 0, 0, 0, 3]], dtype=np.int32))
@example(np.array([[1], [0], [0], [2]], dtype=np.int32))
def test_agrees_with_a_search_of_all_labels(given: np.ndarray) -> None:
    before = given.copy()
    filled = fill_nearest(given)
    np.testing.assert_array_equal(filled, brute_force(given))
    assert filled.dtype == np.int32
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("density", [0.001, 0.02, 0.7])
@pytest.mark.parametrize("shape", [(60, 80), (1, 300), (300, 1), (64, 64)])
def test_blocks_of_rows_make_no_difference(
    shape: tuple[int, int], density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    given = np.where(random.random(shape) < density, random.integers(1, 900, shape), 0).astype(np.int32)
    given[0, 0] = 7
    for pixels in (1, 500, 10**6):
        monkeypatch.setattr(nearest, "BLOCK_PIXELS", pixels)
        np.testing.assert_array_equal(fill_nearest(given), brute_force(given))


def test_far_labels_reach_everywhere() -> None:
    given = np.zeros((3, 5000), dtype=np.int32)
    given[2, 4999] = 70_000
    assert (fill_nearest(given) == 70_000).all()


def test_a_photograph_takes_a_second() -> None:
    given = np.zeros((1200, 1800), dtype=np.int32)
    given[:, ::50] = given[::70] = 5
    start = time.perf_counter()
    fill_nearest(given)
    assert time.perf_counter() - start < 3  # 0.2 s on a quiet machine
