"""Annotated images at the size of training."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from tests.data_for_tests import block, picture, rle

from segany.core.boxes import mask_box
from segany.core.errors import ConfigError, DataError, InstancesError
from segany.core.instances import Instances
from segany.core.rle import decode_crop
from segany.data import LARGE_SCALE_JITTER, AnnotatedImage, ItemConfig, make_item
from segany.data.transforms import resize_encoded
from segany.imaging.resize import resize_pixels

PLAIN = ItemConfig(side=16)
Resize = Literal["longest_side", "square"]


def annotated(image: np.ndarray, *masks: np.ndarray) -> AnnotatedImage:
    return AnnotatedImage("a", image, Instances.from_masks(np.reshape(masks, (-1, *image.shape[:2])).astype(np.bool_)))


def color_is_mask(mask: np.ndarray) -> AnnotatedImage:
    """An image that is white where the mask is, and black elsewhere."""
    return annotated(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255), mask)


def check_equal_but_for_rounding(mask: np.ndarray, picture_of_it: np.ndarray) -> None:
    """A mask is where its picture is white; what is covered by half to within rounding may be either."""
    differs = mask != (picture_of_it >= 127.5)
    assert (np.abs(picture_of_it[differs].astype(float) - 127.5) < 2).all()


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)),
    st.integers(1, 50),
    st.integers(1, 50),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_resizing_a_mask_equals_resizing_its_picture(
    mask: np.ndarray, height: int, width: int, edges: tuple[float, float, float, float]
) -> None:
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    box = (left * mask.shape[1], top * mask.shape[0], right * mask.shape[1], bottom * mask.shape[0])
    if right - left < 0.05 or bottom - top < 0.05:
        box = (0.0, 0.0, float(mask.shape[1]), float(mask.shape[0]))
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    check_equal_but_for_rounding(resize_encoded(rle(mask), (height, width), box), expected)


@pytest.mark.parametrize("resize", ["longest_side", "square"])
@pytest.mark.parametrize("size_hw", [(16, 16), (30, 21), (7, 11), (100, 3)])
def test_without_augmentation_the_image_is_that_of_inference(resize: Resize, size_hw: tuple[int, int]) -> None:
    config = ItemConfig(side=16, resize=resize)
    image = picture(size_hw)
    item = make_item(annotated(image, block(size_hw, 0, 0, size_hw[0] // 2, size_hw[1])), config, 0)
    assert item is not None
    expected = resize_pixels(image, config.preprocessing)
    assert item.image.dtype == expected.dtype
    np.testing.assert_array_equal(item.image, expected)
    assert item.masks.shape == (1, 16, 16)


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=4, max_side=40)),
    st.integers(0, 2**63 - 1),
    st.sampled_from([None, LARGE_SCALE_JITTER, (1.5, 3.0)]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_masks_stay_where_their_image_is(mask: np.ndarray, seed: int, jitter: Any, flip: float) -> None:
    config = ItemConfig(side=24, jitter=jitter, flip=flip, max_mask_fraction=1.0)
    item = make_item(color_is_mask(mask), config, seed)
    if item is None:
        return
    height, width = item.image.shape[:2]
    assert max(height, width) <= 24
    check_equal_but_for_rounding(item.masks[0, :height, :width], item.image[..., 0])
    assert not item.masks[0, height:].any()
    assert not item.masks[0, :, width:].any()
    assert tuple(item.boxes_xyxy[0]) == mask_box(item.masks[0])


@given(st.integers(0, 2**63 - 1), st.booleans())
def test_masks_of_a_stretched_image_stay_as_well(seed: int, flips: bool) -> None:
    mask = block((20, 31), 3, 4, 15, 25)
    config = ItemConfig(side=24, resize="square", jitter=(0.5, 2.0), flip=float(flips), max_mask_fraction=1.0)
    item = make_item(color_is_mask(mask), config, seed)
    if item is None:
        return
    height, width = item.image.shape[:2]
    assert height == width
    assert item.image.dtype == np.float32
    check_equal_but_for_rounding(item.masks[0, :height, :width], item.image[..., 0])


def test_by_hand() -> None:
    """16 x 8 to 8 x 4: pixels become one in fours."""
    mask = np.zeros((8, 16), dtype=np.bool_)
    mask[2:6, 4:12] = True
    item = make_item(annotated(picture((8, 16)), mask), ItemConfig(side=8), 3)
    assert item is not None
    np.testing.assert_array_equal(item.masks[0], block((8, 8), 1, 2, 3, 6))
    assert item.boxes_xyxy.tolist() == [[2, 1, 6, 3]]
    assert item.boxes_xyxy.dtype == np.float32
    assert (item.name, item.seed) == ("a", 3)


def test_flip_mirrors_the_image_and_not_the_padding() -> None:
    mask = block((16, 8), 0, 0, 4, 2)
    item = make_item(color_is_mask(mask), dataclasses.replace(PLAIN, flip=1.0), 0)
    assert item is not None
    assert item.image.shape == (16, 8, 3)
    assert item.boxes_xyxy.tolist() == [[6, 0, 8, 4]]


def test_jitter_scales_and_crops() -> None:
    image = annotated(picture((16, 16)), np.ones((16, 16), dtype=np.bool_))
    half = make_item(image, ItemConfig(side=16, jitter=(0.5, 0.5), max_mask_fraction=1.0), 0)
    assert half is not None
    assert half.image.shape == (8, 8, 3)
    config = ItemConfig(side=16, jitter=(2.0, 2.0), max_mask_fraction=1.0)
    crops = [make_item(image, config, seed) for seed in range(4)]
    assert all(crop is not None and crop.image.shape == (16, 16, 3) for crop in crops)
    assert len({crop.image.tobytes() for crop in crops if crop}) == 4


def test_scale_of_one_is_no_jitter() -> None:
    image = annotated(picture((30, 21)), block((30, 21), 2, 3, 11, 17))
    with_jitter, without = (make_item(image, ItemConfig(side=16, jitter=jitter), 0) for jitter in ((1.0, 1.0), None))
    assert with_jitter is not None
    assert without is not None
    np.testing.assert_array_equal(with_jitter.image, without.image)
    np.testing.assert_array_equal(with_jitter.masks, without.masks)


def test_random_resized_crops_have_the_area_and_aspect_ratio_asked_for() -> None:
    """The image is a gradient, so that its pixels tell which part of it an item shows."""
    rows, columns = np.mgrid[:90, :120]
    image = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    config = ItemConfig(side=32, crop_area=(0.2, 1.0), needs_masks=False)
    areas, aspects = [], []
    for seed in range(200):
        item = make_item(annotated(image), config, seed)
        assert item is not None
        assert item.image.shape == (32, 32, 3)
        shown = item.image.astype(float)
        height = (shown[-1, 0, 0] - shown[0, 0, 0]) * 32 / 31
        width = (shown[0, -1, 1] - shown[0, 0, 1]) * 32 / 31
        areas.append(height * width / (90 * 120))
        aspects.append(width / height)
    assert 0.18 < min(areas) < 0.3
    assert 0.85 < max(areas) <= 1.05
    assert 0.7 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.4
    assert abs(np.log(aspects).mean()) < 0.06
    narrow = make_item(annotated(image[:4]), config, 0)  # no such crop fits
    assert narrow is not None
    assert narrow.image.shape == (32, 32, 3)


def test_large_and_empty_masks_are_dropped() -> None:
    fits, too_large = block((10, 10), 0, 0, 9, 10), block((10, 10), 0, 0, 9, 10)
    too_large[9, 0] = True
    empty = np.zeros((10, 10), dtype=np.bool_)
    item = make_item(annotated(picture((10, 10)), empty, fits, too_large), ItemConfig(side=10), 0)
    assert item is not None
    np.testing.assert_array_equal(item.masks, [fits])
    assert make_item(annotated(picture((10, 10)), empty, too_large), ItemConfig(side=10), 0) is None
    assert make_item(annotated(picture((10, 10))), ItemConfig(side=10), 0) is None


def test_masks_are_dropped_that_shrink_to_nothing_or_are_cropped_away() -> None:
    speck = block((64, 64), 0, 0, 1, 1)
    assert make_item(annotated(picture((64, 64)), speck), ItemConfig(side=8), 0) is None
    config = ItemConfig(side=64, jitter=(2.0, 2.0))
    left = [make_item(annotated(picture((64, 64)), block((64, 64), 0, 0, 8, 8)), config, seed) for seed in range(12)]
    assert any(item is None for item in left)
    assert any(item is not None for item in left)
    assert all(item.masks.any(axis=(1, 2)).all() for item in left if item)


def test_masks_that_fill_what_is_left_are_dropped() -> None:
    config = ItemConfig(side=16, jitter=(8.0, 8.0))
    assert make_item(annotated(picture((16, 16)), block((16, 16), 0, 0, 14, 16)), config, 1) is None


def test_masks_are_drawn_by_the_seed() -> None:
    masks = [block((20, 20), row, 0, row + 1, 20) for row in range(20)]
    image = annotated(picture((20, 20)), *masks)
    config = ItemConfig(side=20, max_masks=5)
    drawn = [make_item(image, config, seed) for seed in (1, 1, 2)]
    rows = [item.boxes_xyxy[:, 1].astype(int).tolist() for item in drawn if item]
    assert [len(each) for each in rows] == [5, 5, 5]
    assert rows[0] == rows[1] != rows[2]
    assert rows[0] == sorted(rows[0])
    everything = make_item(image, ItemConfig(side=20), 1)
    assert everything is not None
    np.testing.assert_array_equal(everything.masks, masks)
    mirrored = make_item(image, dataclasses.replace(config, flip=1.0), 1)
    assert mirrored is not None
    assert mirrored.boxes_xyxy[:, 1].astype(int).tolist() == rows[0]  # flipping draws no others


def test_only_masks_that_are_drawn_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(
        "segany.data.transforms.decode_crop", lambda encoding: decoded.append(1) or decode_crop(encoding)
    )
    image = annotated(picture((20, 20)), *[np.eye(20, dtype=np.bool_)] * 30)
    make_item(image, ItemConfig(side=20, max_masks=4), 0)
    assert len(decoded) == 4


def test_damaged_masks() -> None:
    image = picture((6, 8))
    with pytest.raises(DataError, match="a is 8 wide and 6 high, but its masks are 6 wide and 8 high"):
        AnnotatedImage("a", image, Instances.from_masks(block((8, 6), 0, 0, 2, 2)))
    with pytest.raises(InstancesError, match="A mask is damaged"):
        Instances(["0"], (6, 8), boxes_xyxy=[[0, 0, 1, 1]])


@pytest.mark.parametrize(
    "change",
    [
        {"side": 0},
        {"resize": "pad"},
        {"max_masks": 0},
        {"max_mask_fraction": 0.0},
        {"max_mask_fraction": 1.1},
        {"jitter": (2.0, 0.1)},
        {"jitter": (0.0, 1.0)},
        {"jitter": (0.1, float("nan"))},
        {"jitter": (1.0, 100.0)},
        {"jitter": (1.0,)},
        {"flip": -0.1},
        {"flip": 1.5},
    ],
)
def test_config_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        ItemConfig(**change)


def test_defaults_are_those_of_the_paper() -> None:
    config = ItemConfig()
    assert (config.side, config.max_masks, config.max_mask_fraction) == (1024, 64, 0.9)
    assert (config.jitter, config.flip) == (None, 0.0)


def test_items_can_have_boxes_without_masks():
    annotated = AnnotatedImage("a", np.zeros((40, 60, 3), np.uint8), Instances.from_masks(two_boxes((40, 60))))
    for flip in (0.0, 1.0):
        whole = make_item(annotated, ItemConfig(side=120, flip=flip), 0)
        boxed = make_item(annotated, ItemConfig(side=120, flip=flip, boxes_only=True), 0)
        assert boxed.masks.shape == (0, 120, 120)
        assert len(boxed.boxes_xyxy) == 2
        np.testing.assert_array_equal(boxed.boxes_xyxy, whole.boxes_xyxy)
        np.testing.assert_array_equal(boxed.boxes_xyxy, [mask_box(mask) for mask in whole.masks])
        np.testing.assert_array_equal(boxed.image, whole.image)


def two_boxes(size_hw):
    masks = np.zeros((2, *size_hw), dtype=np.bool_)
    masks[0, 5:20, 10:25] = masks[1, 15:38, 2:50] = True
    return masks
