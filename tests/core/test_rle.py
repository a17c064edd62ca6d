"""COCO run-length encodings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from segany.core.rle import coco_bbox_xywh, decode_crop, decode_mask, decode_masks, encode_masks, run_lengths


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=4, max_side=6)))
def test_decoding_restores_the_masks(masks: np.ndarray) -> None:
    encodings = json.loads(json.dumps(encode_masks(masks)))
    np.testing.assert_array_equal(decode_masks(encodings), masks.reshape(-1, *masks.shape[-2:]))


@given(st.integers(0, 5), st.integers(0, 4))
def test_pycocotools_reads_it(row: int, column: int) -> None:
    mask = np.zeros((6, 5), dtype=np.bool_)
    mask[row:, column:] = True
    (encoding,) = encode_masks(mask)
    assert encoding["size"] == [6, 5]
    assert coco_mask.area(encoding) == mask.sum()
    assert coco_mask.toBbox(encoding).tolist() == [column, row, 5 - column, 6 - row]


def test_layout_of_memory_does_not_matter() -> None:
    mask = np.random.default_rng(0).random((8, 9)) < 0.5
    for view in (mask[:, ::-1], mask.T, mask[::2, 1::3], np.asfortranarray(mask)):
        np.testing.assert_array_equal(decode_masks(encode_masks(view))[0], view)


def test_no_masks_encode_to_nothing_and_cannot_be_decoded() -> None:
    assert encode_masks(np.zeros((0, 4, 5), dtype=np.bool_)) == []
    with pytest.raises(ValueError, match="at least one"):
        decode_masks([])
    with pytest.raises(ValueError, match="same size"):
        decode_masks([*encode_masks(np.zeros((2, 3), bool)), *encode_masks(np.zeros((3, 2), bool))])


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_crop_is_the_bounding_box(mask: np.ndarray) -> None:
    (encoding,) = encode_masks(mask)
    crop, (x, y) = decode_crop(encoding)
    height, width = crop.shape
    assert coco_bbox_xywh(encoding) == (x, y, width, height)
    np.testing.assert_array_equal(mask[y : y + height, x : x + width], crop)
    assert crop.sum() == mask.sum()


@pytest.mark.parametrize("density", [0, 0.001, 0.5, 1])
def test_decoding_agrees_with_pycocotools(density: float) -> None:
    mask = np.random.default_rng(0).random((700, 900)) < density
    (encoding,) = encode_masks(mask)
    np.testing.assert_array_equal(decode_mask(encoding), coco_mask.decode(encoding) > 0)
    lengths = run_lengths(encoding)
    assert lengths[0::2].sum() == (~mask).sum()
    assert lengths[1::2].sum() == mask.sum()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "not the compressed run lengths"),
        ("0o", "not the compressed run lengths"),
        ("0~", "not the compressed run lengths"),
        ("0 0", "not the compressed run lengths"),
        ("é", "not the compressed run lengths"),
        ("o" * 30 + "0", "too large"),
        ("1", "do not add up to its size, 5 x 4"),
        ("O5E", "do not add up"),
    ],
)
def test_damaged_text_is_refused(counts: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask({"size": [4, 5], "counts": counts})
