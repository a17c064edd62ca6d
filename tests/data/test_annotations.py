"""Masks as annotation files have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from tests.data_for_tests import block, rle

from segany.core.errors import DataError
from segany.core.rle import decode_mask, run_lengths
from segany.data.annotations import encode_segmentation, parse_json


def test_polygon_along_pixel_edges_is_those_pixels() -> None:
    square = [2, 1, 6, 1, 6, 4, 2, 4]
    encoding = encode_segmentation([square], (6, 8))
    assert encoding is not None
    np.testing.assert_array_equal(decode_mask(encoding), block((6, 8), 1, 2, 4, 6))


def test_polygons_of_an_object_are_united() -> None:
    left, right = [0, 0, 4, 0, 4, 2, 0, 2], [2, 0, 6, 0, 6, 2, 2, 2]
    encoding = encode_segmentation([np.array(left, float), right], (6, 8))
    assert encoding is not None
    np.testing.assert_array_equal(decode_mask(encoding), block((6, 8), 0, 0, 2, 6))


@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=8))
def test_polygons_agree_with_pycocotools(corners: list[tuple[float, float]]) -> None:
    polygon = [number for corner in corners for number in corner]
    encoding = encode_segmentation([polygon], (9, 7))
    assert encoding is not None
    expected = coco_mask.decode(coco_mask.frPyObjects([polygon], 9, 7))[..., 0]
    np.testing.assert_array_equal(decode_mask(encoding), expected.astype(bool))


def test_run_lengths_go_down_the_columns() -> None:
    encoding = encode_segmentation({"size": [3, 2], "counts": [1, 3, 2]}, (3, 2))
    assert encoding is not None
    np.testing.assert_array_equal(decode_mask(encoding), [[0, 1], [1, 0], [1, 0]])


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_all_forms_of_run_lengths_agree(mask: np.ndarray) -> None:
    size_hw = (mask.shape[0], mask.shape[1])
    compressed = rle(mask)
    plain = {"size": list(size_hw), "counts": run_lengths(compressed).tolist()}
    assert encode_segmentation(compressed, size_hw) == encode_segmentation(plain, size_hw) == compressed


@pytest.mark.parametrize("nothing", [None, [], [[1, 1, 2, 2]], [[]]])
def test_what_is_no_mask(nothing: Any) -> None:
    assert encode_segmentation(nothing, (3, 2)) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [2, 3], "counts": [6]}, r"of size \[2, 3\], but the image is \[3, 2\]"),
        ({"size": [3, 2], "counts": [1, 3, 1]}, "add up to 5"),
        ({"size": [3, 2], "counts": [7, -1]}, "whole numbers"),
        ({"size": [3, 2], "counts": [0.5, 5.5]}, "whole numbers"),
        ({"size": [3, 2], "counts": [2**63, 2**63, 6]}, "whole numbers|add up"),
        ({"size": [3, 2], "counts": "0o"}, "not the compressed run lengths"),
        ({"size": [3, 2], "counts": 7}, "neither run lengths nor text"),
        ({"size": None, "counts": "6"}, "of size None"),
        ({"counts": "6"}, "of size None"),
        ("6", "not '6'"),
        ([[1, 1, 2]], "x, y, x, y"),
        ([[1, 1, 2, 2, "a", 3]], "x, y, x, y"),
        ([1, 1, 2, 2, 3, 3], "x, y, x, y"),
        ([[0, 0, 1, 0, 1, float("nan")]], "far outside"),
        ([[0, 0, 1, 0, 1e9, 1]], "far outside"),
    ],
)
def test_damage_is_refused(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_segmentation(segmentation, (3, 2))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "it is empty"), (b'{"a": [1', "cut off"), (b"\xff\xfe{", "damaged"), (b"[" * 100_000, "damaged")],
)
def test_broken_json(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(data, "a.json")
