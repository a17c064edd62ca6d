"""The dictionaries of SA-1B, whose boxes are one pixel short."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from tests.instances_for_tests import SIZE_HW, make_instances, rectangle

from segany import Instances, InstancesError, from_sa1b, to_sa1b

INSTANCES = make_instances(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), rectangle(0, 0, 1, 1)]))


def test_field_for_field() -> None:
    data = to_sa1b(INSTANCES, "sa_1.jpg", 1)
    assert data["image"] == {"image_id": 1, "width": 40, "height": 30, "file_name": "sa_1.jpg"}
    assert data["annotations"][2] == {
        "id": 3,
        "segmentation": {"size": [30, 40], "counts": INSTANCES.rle_counts[2]},
        "bbox": [0, 0, 0, 0],
        "area": 1,
        "predicted_iou": pytest.approx(0.98),
        "point_coords": [[12.5, 3.25]],
        "stability_score": pytest.approx(0.97),
        "crop_box": [0, 0, 40, 30],
    }
    assert data["annotations"][1]["bbox"] == [5, 5, 3, 3]


@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_round_trip(masks: np.ndarray) -> None:
    instances = make_instances(masks).with_columns(annotation_id=np.arange(len(masks)) + 7)
    again = from_sa1b(json.loads(json.dumps(to_sa1b(instances, "a.jpg", 7))))
    assert set(again.sources.tolist()) == {"import"}
    assert again == Instances(again.rle_counts, instances.size_hw, scores=instances.scores, columns=instances.columns)
    assert again.rle_counts == instances.rle_counts


def test_boxes_are_those_of_the_masks() -> None:
    hand_drawn = Instances.from_masks(rectangle(2, 3, 5, 7), boxes_xyxy=[[1.5, 2.5, 5.5, 7.5]])
    (annotation,) = to_sa1b(hand_drawn)["annotations"]
    assert annotation["bbox"] == [2, 3, 2, 3]
    assert set(annotation) == {"id", "segmentation", "bbox", "area"}  # what nothing made has no scores
    assert from_sa1b(to_sa1b(hand_drawn)).boxes_xyxy.tolist() == [[2, 3, 5, 7]]


def test_no_instances() -> None:
    assert from_sa1b(to_sa1b(INSTANCES[:0])) == Instances.empty(SIZE_HW)


@pytest.mark.parametrize(
    "data", [[], {}, {"image": {}}, {"image": {"height": 1, "width": 1}, "annotations": [{}]}, {"image": 3}]
)
def test_other_dictionaries_are_refused(data: Any) -> None:
    with pytest.raises(InstancesError, match="no annotation file of SA-1B"):
        from_sa1b(data)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [40, 30], "counts": "0"}, r"mask 1 is damaged.*size \[40, 30\], but the image is \[30, 40\]"),
        ({"size": [30, 40], "counts": "0o"}, "mask 1 is damaged.*not the compressed run lengths"),
    ],
)
def test_damaged_masks_are_refused(segmentation: Any, message: str) -> None:
    data = to_sa1b(INSTANCES)
    data["annotations"][1]["segmentation"] = segmentation
    with pytest.raises(InstancesError, match=message):
        from_sa1b(data)


def test_claims_of_impossible_sizes_are_refused() -> None:
    for side in (60_000, 10**9, 0):
        with pytest.raises(InstancesError, match="at most 1,000,000,000 pixels"):
            from_sa1b({"image": {"height": side, "width": side}, "annotations": []})
