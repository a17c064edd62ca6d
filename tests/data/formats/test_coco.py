"""COCO dictionaries: what other programs read of them, and the way through them and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tests.instances_for_tests import SIZE_HW, make_instances, rectangle

from segany import Category, Instances, InstancesError, from_coco, to_coco
from segany.core.instance import NO_ID

CAT, DOG = Category(3, "cat", "animal"), Category(8, "dog")
INSTANCES = make_instances(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), rectangle(0, 0, 1, 1)]))


def annotated(**fields: Any) -> dict[str, Any]:
    """A dictionary of one image with one annotation as COCO has it."""
    annotation = {
        "id": 900100, "image_id": 42, "category_id": 8, "iscrowd": 0, "area": 23.25, "bbox": [2.13, 3.4, 5.01, 6.72],
        "segmentation": [[2, 3, 7, 3, 7, 10, 2, 10]], **fields,
    }  # fmt: skip
    return {
        "images": [{"id": 42, "file_name": "a.jpg", "height": 30, "width": 40}],
        "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 8, "name": "dog"}],
        "annotations": [annotation],
    }


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(data))
    return result


def test_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(to_coco(INSTANCES, "a.jpg", image_id=3)))
    coco = COCO(str(path))
    capsys.readouterr()
    assert coco.loadImgs([3]) == [{"id": 3, "file_name": "a.jpg", "width": 40, "height": 30}]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert [item["id"] for item in annotations] == [1, 2, 3]
    for item, instance in zip(annotations, INSTANCES, strict=True):
        np.testing.assert_array_equal(coco.annToMask(item) > 0, instance.mask)
        assert item["area"] == coco_mask.area(item["segmentation"])
        assert item["bbox"] == coco_mask.toBbox(item["segmentation"]).tolist()
        assert item["score"] == item["predicted_iou"] == instance.score
        assert (item["point_coords"], item["crop_box"]) == ([[12.5, 3.25]], [0, 0, 40, 30])
    assert annotations[2]["bbox"] == [0, 0, 1, 1]
    results = [{key: item[key] for key in ("image_id", "category_id", "segmentation", "score")} for item in annotations]
    assert len(coco.loadRes(results).anns) == 3


@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7)), st.data())
def test_what_it_has_a_place_for_comes_back(masks: np.ndarray, data: st.DataObject) -> None:
    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=len(masks), max_size=len(masks)))

    floats = st.floats(0, 1e4, width=32)
    corners = column(st.tuples(floats, floats))
    sides = column(st.tuples(floats, floats))
    instances = Instances.from_masks(
        masks,
        boxes_xyxy=[(x, y, x + width, y + height) for (x, y), (width, height) in zip(corners, sides, strict=True)],
        scores=column(st.floats(-10, 10, width=32)),
        category_ids=column(st.sampled_from([3, 8])),
        categories=[CAT, DOG],
        object_ids=column(st.integers(0, 9)),
        columns={
            "annotation_id": data.draw(st.permutations(range(len(masks)))),
            "iscrowd": column(st.booleans()),
            "annotated_area": column(st.floats(0, 1e9)),
            "predicted_iou": column(st.floats(0, 1)),
            "stability_score": column(st.floats(0, 1)),
            "candidate": column(st.integers(1, 3)),
            "point_xy": column(st.tuples(floats, floats)),
            "crop_box_xyxy": column(st.tuples(*[st.integers(0, 9)] * 4)),
        },
    )
    assert from_coco(through_json(to_coco(instances, "a.jpg", 7)), 7) == instances


def test_what_is_annotated_is_kept() -> None:
    data = annotated(iscrowd=1)
    (one,) = from_coco(data)
    assert (one.category, one.annotation_id, one.iscrowd, one.annotated_area) == (DOG, 900100, True, 23.25)
    assert one.box_xyxy == pytest.approx((2.13, 3.4, 7.14, 10.12), abs=1e-5)
    assert one.source == "import"
    np.testing.assert_array_equal(one.mask, rectangle(2, 3, 7, 10))
    (again,) = to_coco(from_coco(data), "a.jpg", 42)["annotations"]
    for name in ("id", "image_id", "category_id", "iscrowd", "area", "bbox"):  # the decimals of the box, too
        assert again[name] == data["annotations"][0][name]
    assert to_coco(from_coco(data))["categories"] == data["categories"]


def test_lvis_has_neither_crowds_nor_supercategories() -> None:
    data = annotated()
    del data["annotations"][0]["iscrowd"]
    data["categories"] = [{"id": 8, "name": "dog", "synset": "dog.n.01", "frequency": "f"}]
    (one,) = from_coco(data)
    assert (one.category, one.iscrowd) == (DOG, False)


def test_annotations_without_boxes_ids_or_known_categories() -> None:
    data = annotated(category_id=5)
    for name in ("id", "bbox", "area"):
        del data["annotations"][0][name]
    (one,) = from_coco(data)
    assert (one.category, one.annotation_id, one.box_xyxy) == (Category(5, "5"), NO_ID, (2, 3, 7, 10))
    assert np.isnan(one.annotated_area)
    (again,) = to_coco(from_coco(data))["annotations"]
    assert (again["id"], again["area"]) == (1, 35)


def test_annotations_without_masks_are_left_out() -> None:
    data = annotated()
    data["annotations"] += [{**data["annotations"][0], "segmentation": form} for form in ([], [[1, 1, 2, 2]], None)]
    assert len(from_coco(data)) == 1


def test_instances_without_a_class_are_objects() -> None:
    assert to_coco(INSTANCES)["categories"] == to_coco(INSTANCES[:0])["categories"] == [{"id": 1, "name": "object"}]
    some = INSTANCES.with_categories([3, NO_ID, 8], [CAT, DOG])
    data = to_coco(some)
    assert [item["category_id"] for item in data["annotations"]] == [3, 1, 8]
    assert [item["name"] for item in data["categories"]] == ["cat", "dog", "object"]
    taken = to_coco(INSTANCES.with_categories([1, NO_ID, 1], [Category(1, "cat")]))
    assert [item["category_id"] for item in taken["annotations"]] == [1, 2, 1]
    named = to_coco(INSTANCES.with_categories([6, NO_ID, 6], [Category(6, "object")]))
    assert [item["category_id"] for item in named["annotations"]] == [6, 6, 6]
    assert len(named["categories"]) == 1


def test_annotation_ids_that_are_not_unique_are_replaced() -> None:
    for ids in ([5, 5, 6], [5, NO_ID, 6]):
        data = to_coco(INSTANCES.with_columns(annotation_id=ids))
        assert [item["id"] for item in data["annotations"]] == [1, 2, 3]


def test_one_image_of_many() -> None:
    data, other = to_coco(INSTANCES, "a.jpg", 1), to_coco(INSTANCES[:2], "b.jpg", 2)
    both = {**data, **{key: data[key] + other[key] for key in ("images", "annotations")}}
    assert from_coco(both, image_id=2).rle_counts == INSTANCES.rle_counts[:2]
    with pytest.raises(InstancesError, match="has 2 images"):
        from_coco(both)
    with pytest.raises(InstancesError, match="no image with the id 3"):
        from_coco(both, image_id=3)


@pytest.mark.parametrize(
    "data",
    [{}, {"annotations": []}, {"images": [{"id": 1}], "annotations": []}, {"images": 3, "annotations": []}, [],
     {**annotated(), "annotations": ["a"]}, {**annotated(), "annotations": [{"id": 1}]}],
)  # fmt: skip
def test_other_dictionaries_are_refused(data: Any) -> None:
    with pytest.raises(InstancesError, match="no instances file of COCO or LVIS"):
        from_coco(data)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [40, 30], "counts": "0"}, r"mask 0 is damaged.*size \[40, 30\], but the image is \[30, 40\]"),
        ({"size": [30, 40], "counts": "o" * 6 + "0"}, "mask 0 is damaged.*do not add up"),
        ([[1, 2, 3]], "mask 0 is damaged"),
    ],
)
def test_damaged_masks_are_refused(segmentation: Any, message: str) -> None:
    with pytest.raises(InstancesError, match=message):
        from_coco(annotated(segmentation=segmentation))


def test_size_of_no_instances() -> None:
    assert from_coco(to_coco(Instances.empty(SIZE_HW))).size_hw == SIZE_HW


def test_ids_as_text_and_images_of_one_id() -> None:
    data = to_coco(make_instances(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9)])), "a.jpg")
    data["images"][0]["id"] = "1"
    assert len(from_coco(data, 1)) == len(from_coco(data, "1")) == 2  # type: ignore[arg-type]
    data["images"].append({**data["images"][0], "file_name": "b.jpg"})
    with pytest.raises(InstancesError, match=r"Two images have the id 1: a\.jpg and b\.jpg"):
        from_coco(data)


@pytest.mark.parametrize("size_hw", [(10**9, 10**9), (60_000, 60_000), (0, 4), (-4, -4), (10**400, 1)])
def test_claims_of_impossible_sizes_are_refused(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    data = {
        "images": [{"id": 1, "height": height, "width": width}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]}],
    }
    with pytest.raises(InstancesError, match="at most 1,000,000,000 pixels"):
        from_coco(data)


def test_outlines_that_would_take_gigabytes_are_refused() -> None:
    data = {
        "images": [{"id": 1, "height": 1, "width": 10**9}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [[0, 0, 5e7, 0, 5e7, 1]]}],
    }
    with pytest.raises(InstancesError, match="outline is 1e"):
        from_coco(data)
