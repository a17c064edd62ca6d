"""Objects with masks, as columns."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tests.instances_for_tests import SIZE_HW, make_instances, rectangle

from segany import Category, ConfigError, Instances, InstancesError
from segany.core.instance import NO_ID
from segany.core.polygons import polygons_to_mask

stacks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7))
CAT, DOG = Category(3, "cat", "animal"), Category(8, "dog")


@pytest.fixture
def instances() -> Instances:
    """A part within a whole, a ring, a pixel, and a mask that overlaps the whole."""
    ring = rectangle(28, 2, 38, 12) & ~rectangle(30, 4, 36, 10)
    whole, part, pixel, other = (
        rectangle(*box) for box in ((2, 2, 20, 25), (5, 5, 9, 9), (0, 0, 1, 1), (15, 8, 40, 28))
    )
    return make_instances(np.stack([whole, part, ring, pixel, other]))


@given(stacks)
def test_masks_come_back(masks: np.ndarray) -> None:
    instances = Instances.from_masks(masks)
    np.testing.assert_array_equal(instances.masks(), masks)
    assert instances.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    for instance, mask, (x0, y0, x1, y1) in zip(instances, masks, instances.boxes_xyxy.astype(int), strict=True):
        np.testing.assert_array_equal(instance.mask, mask)
        np.testing.assert_array_equal(polygons_to_mask(instance.polygons, mask.shape), mask)
        assert mask.sum() == mask[y0:y1, x0:x1].sum()
        if mask.any():
            assert mask[y0:y1, x0:x1].any(axis=0)[[0, -1]].all()
            assert mask[y0:y1, x0:x1].any(axis=1)[[0, -1]].all()
    assert Instances.from_rles(instances.rles, instances.size_hw) == instances


def test_one_mask_alone_is_enough() -> None:
    (one,) = Instances.from_masks(rectangle(2, 3, 5, 7))
    assert one.box_xyxy == (2, 3, 5, 7)
    assert (one.category, one.object_id, one.source, one.area, one.size_hw) == (None, NO_ID, "import", 12, SIZE_HW)
    assert np.isnan(one.score)
    assert one.columns == {}


def test_rows_have_optional_columns_as_attributes(instances: Instances) -> None:
    first = instances[0]
    assert (first.predicted_iou, first.point_xy, first.crop_box_xyxy) == (1.0, (12.5, 3.25), (0, 0, 40, 30))
    assert instances.predicted_iou is instances.columns["predicted_iou"]
    with pytest.raises(AttributeError, match="no 'depth'; its optional columns: predicted_iou, stab"):
        _ = first.depth
    with pytest.raises(AttributeError, match="no 'depth'"):
        _ = instances.depth
    with pytest.raises(IndexError, match="5 of 5"):
        _ = instances[5]
    assert instances[-1].mask[27, 39]
    assert "5 instances in an image 40 wide and 30 high" in repr(instances)


def test_values_cannot_be_changed(instances: Instances) -> None:
    with pytest.raises(FrozenInstanceError):
        instances.size_hw = (1, 1)
    for array in (instances.scores, instances.boxes_xyxy, instances.predicted_iou, instances.sources):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    scores = np.zeros(5, dtype=np.float32)
    copied = make_instances(instances.masks()).with_columns(quality=scores)
    scores[0] = 9
    assert copied.quality[0] == 0


@given(stacks, st.data())
def test_choosing_keeps_rows_together(masks: np.ndarray, data: st.DataObject) -> None:
    count = len(masks)
    numbers = np.arange(count)
    instances = Instances.from_masks(masks, scores=numbers, object_ids=numbers, columns={"number": numbers})
    chosen = data.draw(
        st.one_of(
            st.lists(st.integers(-count, count - 1), max_size=5),
            st.lists(st.booleans(), min_size=count, max_size=count).map(np.array),
            st.slices(count),
        )
    )
    part = instances[chosen]
    expected = numbers[chosen if not isinstance(chosen, list) else np.array(chosen, dtype=int)]
    assert part.number.tolist() == part.object_ids.tolist() == part.scores.tolist() == expected.tolist()
    np.testing.assert_array_equal(part.masks(), masks[expected])


@given(stacks, st.integers(0, 7))
def test_parts_concatenate_to_the_whole(masks: np.ndarray, at: int) -> None:
    whole = make_instances(masks).with_categories(np.full(len(masks), CAT.id), [CAT])
    assert Instances.concatenate([whole[:at], whole[at:]]) == whole


def test_concatenating_what_does_not_go_together(instances: Instances) -> None:
    mask = rectangle(0, 0, 1, 1)
    with pytest.raises(InstancesError, match="nothing to concatenate"):
        Instances.concatenate([])
    with pytest.raises(InstancesError, match="columns that others lack: crop_box_xyxy, point_xy"):
        Instances.concatenate([instances, Instances.from_masks(mask)])
    mixed = Instances.concatenate([instances, Instances.from_masks(mask)], drop_unshared=True)
    assert (len(mixed), mixed.columns) == (6, {})
    with pytest.raises(InstancesError, match="different sizes"):
        Instances.concatenate([instances, Instances.empty((3, 4))])
    with pytest.raises(InstancesError, match="Category 3 is both '"):
        Instances.concatenate([Instances.empty(SIZE_HW, [CAT]), Instances.empty(SIZE_HW, [Category(3, "dog")])])
    both = Instances.concatenate([Instances.empty(SIZE_HW, [CAT]), Instances.empty(SIZE_HW, [DOG])])
    assert both.categories == (CAT, DOG)


def test_rows_have_their_categories() -> None:
    masks = np.stack([rectangle(0, 0, 1, 1)] * 3)
    instances = Instances.from_masks(masks, category_ids=[8, NO_ID, 3], categories=[CAT, DOG])
    assert [instance.category for instance in instances] == [DOG, None, CAT]
    assert instances.category(8) == DOG
    assert instances.category(1) is None
    assert instances[1:].categories == (CAT, DOG)
    assert instances.with_categories([3, 3, 3], [CAT])[0].category == CAT
    with pytest.raises(InstancesError, match=r"no category 8. Known ids: \[3\]"):
        instances.with_categories([8, 3, 3], [CAT])
    with pytest.raises(InstancesError, match="same id"):
        Instances.empty(SIZE_HW, [CAT, Category(3, "dog")])


def test_instances_are_found_by_object_id() -> None:
    instances = Instances.from_masks(np.stack([rectangle(0, 0, 1, 1)] * 2), object_ids=[7, 4])
    assert instances.index_of(4) == 1
    with pytest.raises(InstancesError, match=r"no object 5\. The objects: 7, 4"):
        instances.index_of(5)


def test_scores_sort_and_missing_ones_come_last() -> None:
    instances = Instances.from_masks(
        np.stack([rectangle(0, 0, 1, 1)] * 4), scores=[0.5, np.nan, 0.9, 0.5], object_ids=[0, 1, 2, 3]
    )
    assert instances.sorted_by_score().object_ids.tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scores": [1, 2]}, r"scores has shape \[2\], but there are 1 instances"),
        ({"scores": [[1, 2]]}, r"scores has shape \[1, 2\], not \[1\]"),
        ({"boxes_xyxy": [[1, 2, 3]]}, r"boxes_xyxy has shape \[1, 3\], not \[1, 4\]"),
        ({"boxes_xyxy": [[5, 2, 3, 4]]}, r"box \(5, 2, 3, 4\) is not left, top, right, bottom"),
        ({"boxes_xyxy": [[0, 0, np.inf, 1]]}, "is not left, top"),
        ({"object_ids": [-2]}, "object_ids must be whole numbers from 0"),
        ({"category_ids": [0.5]}, "category_ids must be whole numbers"),
        ({"sources": "automatically"}, "no source 'automatically'. Sources: prompt, automatic"),
        ({"sources": ["human", "human"]}, r"sources has shape \[2\]"),
        ({"columns": {"depth": 3}}, "depth has shape"),
        ({"columns": {"depth": [[1], [2, 3]]}}, "depth"),
        ({"columns": {"area": [3]}}, "cannot be called area"),
        ({"columns": {"scores": [3]}}, "cannot be called scores"),
        ({"columns": {"mask": [3]}}, "cannot be called mask"),
        ({"columns": {"box_xyxy": [3]}}, "cannot be called box_xyxy"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InstancesError, match=message):
        Instances.from_masks(rectangle(0, 0, 2, 2), **columns)


@pytest.mark.parametrize("masks", [np.zeros((2, 3)), np.zeros(3, bool), np.zeros((1, 1, 2, 3), bool), [[0, 1]]])
def test_masks_must_be_boolean_and_flat(masks: Any) -> None:
    with pytest.raises(InstancesError, match="masks must be bool"):
        Instances.from_masks(masks)


def test_damaged_run_lengths() -> None:
    with pytest.raises(InstancesError, match=r"A mask is damaged\. .* do not add up"):
        Instances(["0"], (3, 4))
    with pytest.raises(InstancesError, match=r"size \[3, 5\], but the image \[3, 4\]"):
        Instances.from_rles([{"size": [3, 5], "counts": "?"}], (3, 4))
    with pytest.raises(InstancesError, match="damaged"):
        Instances.from_rles([{"size": [3, 4], "counts": "?"}], (3, 4))


def test_values_are_compared(instances: Instances) -> None:
    assert instances == make_instances(instances.masks())
    assert instances != instances[1:]
    assert instances != instances.with_columns(predicted_iou=np.zeros(5))
    assert instances != instances.with_columns(more=np.zeros(5))
    assert instances != "instances"
    nan = Instances.from_masks(rectangle(0, 0, 1, 1), columns={"annotated_area": [np.nan]})
    assert nan == nan.with_columns(annotated_area=[np.nan])
    with pytest.raises(TypeError, match="unhashable"):
        hash(instances)


def test_pickling_keeps_everything(instances: Instances) -> None:
    again = pickle.loads(pickle.dumps(instances))
    assert again == instances
    assert again.predicted_iou.tolist() == instances.predicted_iou.tolist()
    assert pickle.loads(pickle.dumps(instances[0])).predicted_iou == instances[0].predicted_iou


def test_no_instances_are_a_value() -> None:
    empty = Instances.empty(SIZE_HW, [CAT])
    assert not empty
    assert empty.masks().shape == (0, *SIZE_HW)
    assert empty.boxes_xyxy.shape == empty.mask_boxes_xyxy.shape == (0, 4)
    assert not empty.to_label_map(fill=True).any()
    assert empty.polygons() == ()
    assert len(empty.nms(0.5)) == len(empty[[]]) == len(empty.sorted_by_score()) == 0


def test_given_boxes_are_kept_beside_those_of_the_masks() -> None:
    instances = Instances.from_masks(rectangle(2, 3, 5, 7), boxes_xyxy=[[1.5, 3, 5.25, 7]])
    assert instances.boxes_xyxy.tolist() == [[1.5, 3, 5.25, 7]]
    assert instances.mask_boxes_xyxy.tolist() == [[2, 3, 5, 7]]


def test_nms_keeps_the_higher_score() -> None:
    ring = rectangle(0, 0, 20, 20) & ~rectangle(2, 2, 18, 18)
    masks = np.stack([ring, rectangle(0, 0, 20, 19), rectangle(30, 20, 40, 30), rectangle(0, 0, 19, 20)])
    instances = Instances.from_masks(
        masks, scores=[0.5, 0.9, 0.7, 0.8], category_ids=[3, 3, 3, 8], categories=[CAT, DOG], object_ids=range(4)
    )
    assert instances.nms(0.8).object_ids.tolist() == [1, 2]
    assert instances.nms(0.8, per_category=True).object_ids.tolist() == [1, 3, 2]
    assert instances.nms(0.8, by="mask").object_ids.tolist() == [1, 2, 0]  # the ring's box overlaps, not its mask
    assert instances.nms(1.0).object_ids.tolist() == [1, 3, 2, 0]
    with pytest.raises(ConfigError, match="iou_thresh must lie in"):
        instances.nms(1.5)
    with pytest.raises(ConfigError, match="'box' or 'mask'"):
        instances.nms(0.5, by="area")  # type: ignore[arg-type]


def test_label_map_by_area_puts_parts_over_wholes(instances: Instances) -> None:
    labels = instances.to_label_map()
    assert labels.dtype == np.int32
    assert labels[6, 6] == 2  # the part
    assert labels[3, 3] == 1  # the whole around it
    assert labels[10, 17] == 1  # 414 pixels, over 500
    assert labels[7, 33] == 0  # the hole of the ring
    assert labels[0, 0] == 4


def test_label_map_by_score(instances: Instances) -> None:
    labels = instances.to_label_map("score")
    assert labels[6, 6] == 1
    assert labels[10, 17] == 1
    assert labels[10, 30] == 3
    with pytest.raises(ConfigError, match="'area' or 'score', got 'size'"):
        instances.to_label_map("size")  # type: ignore[arg-type]


def test_of_equally_large_masks_the_first_has_the_pixel() -> None:
    instances = make_instances(np.stack([rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 15)]))
    assert instances.to_label_map()[7, 7] == 1


def test_filled_label_map_keeps_what_is_labeled(instances: Instances) -> None:
    plain, filled = instances.to_label_map(), instances.to_label_map(fill=True)
    assert (filled > 0).all()
    np.testing.assert_array_equal(filled[plain > 0], plain[plain > 0])
    assert filled[4, 30] == 3  # beside the ring, within its hole
    assert filled[29, 39] == 5


TRUNCATED = "PPPPPPPPPPPP4PPPPPPPPPPPP4PPPPPPPPPPPP40\\SPPPPPPPPPPL"
"""Its run lengths add up to 9 x 12 modulo 2^64 only."""


@pytest.mark.parametrize("counts", [TRUNCATED, "", "P", "\x00", b"\\3", None])
def test_damaged_masks_are_refused_even_where_boxes_are_given(counts: object) -> None:
    with pytest.raises(InstancesError, match=r"run lengths|damaged"):
        Instances([counts], (12, 9), boxes_xyxy=[[0, 0, 1, 1]])  # type: ignore[list-item]


def test_masked_arrays_are_refused() -> None:
    masks = np.ma.MaskedArray(np.ones((1, 3, 4), bool), mask=np.eye(3, 4, dtype=bool)[None])
    with pytest.raises(InstancesError, match="filled"):
        Instances.from_masks(masks)
    scores = np.ma.MaskedArray([0.5], mask=[True])
    with pytest.raises(InstancesError, match="scores is a masked array"):
        Instances.from_masks(np.ones((1, 3, 4), bool), scores=scores)
