"""Masks that come as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tests.data_for_tests import block, encoded, picture, rle, save

from segany.core.errors import DataError
from segany.core.rle import decode_mask
from segany.data.formats.label_map import encode_labels, read_labels, read_mask, read_objects

LABELS = np.array([[0, 1, 1], [0, 2, 2], [7, 7, 2]], dtype=np.uint8)


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 4)))
def test_encoding_labels_equals_encoding_each_mask(labels: np.ndarray) -> None:
    expected = {label: rle(labels == label) for label in np.unique(labels).tolist() if label}
    assert encode_labels(labels) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_is_an_object(tmp_path: Path, dtype: Any) -> None:
    path = save(tmp_path / "a.png", LABELS.astype(dtype))
    objects = read_objects(path, "a")
    assert list(objects) == [1, 2, 7]
    np.testing.assert_array_equal(decode_mask(objects[2]), LABELS == 2)


def test_palettes_are_read_by_index(tmp_path: Path) -> None:
    colors = [0, 0, 0, 255, 0, 0, 255, 0, 0, *[9] * (253 * 3)]  # 1 and 2 look alike
    path = save(tmp_path / "a.png", LABELS, palette=colors)
    np.testing.assert_array_equal(read_labels(path, "a"), LABELS)


def test_void_of_a_palette_is_no_object(tmp_path: Path) -> None:
    colors = list(range(256)) * 3
    with_void = np.where(LABELS == 7, 255, LABELS).astype(np.uint8)
    assert list(read_objects(save(tmp_path / "a.png", with_void, palette=colors), "a")) == [1, 2]
    binary = np.where(LABELS == 2, 255, 0).astype(np.uint8)  # here 255 is the object
    assert list(read_objects(save(tmp_path / "b.png", binary, palette=colors), "b")) == [255]
    assert list(read_objects(save(tmp_path / "c.png", with_void), "c")) == [1, 2, 255]


def test_colors_are_objects_and_grays_are_values(tmp_path: Path) -> None:
    colors = np.zeros((2, 3, 3), dtype=np.uint8)
    colors[0] = (10, 0, 1)
    colors[1, 0] = (0, 10, 1)
    assert list(read_objects(save(tmp_path / "a.png", colors), "a")) == [10 + 65536, 2560 + 65536]
    gray = np.repeat(LABELS[..., None], 4, axis=2)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "b.png", gray), "b"), LABELS)


@pytest.mark.parametrize("high", [1, 255])
def test_foreground_is_above_half(tmp_path: Path, high: int) -> None:
    mask = block((6, 8), 1, 2, 4, 6)
    path = save(tmp_path / "a.png", mask.astype(np.uint8) * np.uint8(high))
    np.testing.assert_array_equal(read_mask(path, "a"), mask)
    assert not read_mask(save(tmp_path / "b.png", np.zeros((6, 8), np.uint8)), "b").any()


def test_lossy_masks_go_as_foreground_only() -> None:
    mask = block((32, 32), 8, 8, 24, 16)
    data = encoded(mask.astype(np.uint8) * np.uint8(255), "JPEG")
    np.testing.assert_array_equal(read_mask(data, "a"), mask)
    with pytest.raises(DataError, match=r"JPEG.*objects='foreground'"):
        read_objects(data, "a.jpg")


def test_parts_are_connected_at_corners_too(tmp_path: Path) -> None:
    mask = np.zeros((5, 6), dtype=np.uint8)
    mask[0, 0] = mask[1, 1] = mask[4, 5] = 255
    objects = read_objects(save(tmp_path / "a.png", mask), "a", "parts")
    assert list(objects) == [1, 2]
    assert np.argwhere(decode_mask(objects[1])).tolist() == [[0, 0], [1, 1]]
    assert np.argwhere(decode_mask(objects[2])).tolist() == [[4, 5]]


def test_bad_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        read_labels(tmp_path / "a.png", "a.png")
    whole = encoded(LABELS, "PNG")
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        read_labels(whole[: len(whole) // 2], "a.png")
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        read_labels(b"no picture", "a.png")
    with pytest.raises(DataError, match="photograph"):
        read_labels(encoded(picture((100, 100)), "PNG"), "a.png")
    with pytest.raises(DataError, match="mode"):
        read_labels(encoded(np.zeros((3, 3), np.float32), "TIFF"), "a.tif")
