"""Mask records: values, formats, and the way through them and back."""

import json
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tests.records_for_tests import SIZE_HW, make_record, make_records, rectangle

from segany.core.errors import ConfigError, ImageError, InstancesError, MissingExtraError
from segany.core.polygons import polygons_to_mask
from segany.data.formats.records import MaskRecords

stacks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7))


@pytest.fixture
def records() -> MaskRecords:
    """A part within a whole, a ring, a pixel, and a mask that overlaps the whole."""
    ring = rectangle(28, 2, 38, 12) & ~rectangle(30, 4, 36, 10)
    return make_records(
        np.stack(
            [rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), ring, rectangle(0, 0, 1, 1), rectangle(15, 8, 40, 28)]
        )
    )


def test_records_are_sorted_and_immutable() -> None:
    low, high, other = (make_record(rectangle(0, 0, n, n), score) for n, score in ((3, 0.5), (4, 0.9), (5, 0.5)))
    records = MaskRecords((low, high, other), SIZE_HW)
    assert list(records) == [high, low, other]
    assert (records[0], records[-1], len(records)) == (high, other, 3)
    assert records[1:] == MaskRecords((low, other), SIZE_HW)
    assert high in records
    assert "3 masks" in repr(records)
    with pytest.raises(FrozenInstanceError):
        records.size_hw = (1, 1)
    with pytest.raises(InstancesError, match=r"\(30, 40\), but the image \(5, 5\)"):
        MaskRecords((low,), (5, 5))


@given(stacks)
def test_masks_come_back(masks: np.ndarray) -> None:
    records = make_records(masks)
    np.testing.assert_array_equal(records.masks(), masks)
    for record, mask, polygons in zip(records, masks, records.to_polygons(), strict=True):
        np.testing.assert_array_equal(record.mask, mask)
        np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)


@given(stacks)
def test_json_formats_round_trip(masks: np.ndarray) -> None:
    records = make_records(masks)
    assert MaskRecords.from_coco(json.loads(json.dumps(records.to_coco("a.jpg", 7)))) == records
    assert MaskRecords.from_sa1b(json.loads(json.dumps(records.to_sa1b("a.jpg", 7)))) == records


def test_no_masks_are_a_result(tmp_path: Path) -> None:
    empty = MaskRecords((), SIZE_HW)
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    assert not empty
    assert empty.masks().shape == (0, *SIZE_HW)
    assert not empty.to_label_map(fill=True).any()
    assert empty.to_polygons() == ()
    np.testing.assert_array_equal(empty.overlay(image), image)
    assert MaskRecords.from_coco(empty.to_coco()) == MaskRecords.from_sa1b(empty.to_sa1b()) == empty


def test_pycocotools_reads_the_coco_file(
    records: MaskRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(records.to_coco("a.jpg", image_id=3)))
    coco = COCO(str(path))
    capsys.readouterr()
    assert coco.loadImgs([3]) == [{"id": 3, "file_name": "a.jpg", "width": 40, "height": 30}]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert [item["id"] for item in annotations] == [1, 2, 3, 4, 5]
    for item, record in zip(annotations, records, strict=True):
        np.testing.assert_array_equal(coco.annToMask(item) > 0, record.mask)
        assert item["area"] == coco_mask.area(item["segmentation"])
        assert item["bbox"] == coco_mask.toBbox(item["segmentation"]).tolist()
        assert item["score"] == item["predicted_iou"] == record.predicted_iou
    assert annotations[3]["bbox"] == [0, 0, 1, 1]
    results = [{key: item[key] for key in ("image_id", "category_id", "segmentation", "score")} for item in annotations]
    assert len(coco.loadRes(results).anns) == 5


def test_sa1b_field_for_field(records: MaskRecords) -> None:
    data = records.to_sa1b("sa_1.jpg", 1)
    assert data["image"] == {"image_id": 1, "width": 40, "height": 30, "file_name": "sa_1.jpg"}
    assert data["annotations"][3] == {
        "id": 4,
        "segmentation": {"size": [30, 40], "counts": records[3].rle_counts},
        "bbox": [0, 0, 0, 0],
        "area": 1,
        "predicted_iou": 0.97,
        "point_coords": [[12.5, 3.25]],
        "stability_score": 0.97,
        "crop_box": [0, 0, 40, 30],
    }


def test_one_image_of_a_coco_dictionary(records: MaskRecords) -> None:
    data, other = records.to_coco("a.jpg", 1), records[:2].to_coco("b.jpg", 2)
    both = {**data, **{key: data[key] + other[key] for key in ("images", "annotations")}}
    assert MaskRecords.from_coco(both, image_id=2) == records[:2]
    with pytest.raises(InstancesError, match="has 2 images"):
        MaskRecords.from_coco(both)
    with pytest.raises(InstancesError, match="no image with the id 3"):
        MaskRecords.from_coco(both, image_id=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stability_score": None}, "Annotation 1 cannot be read: stability_score"),
        ({"point_coords": []}, "point_coords"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "segmentation"),
        ({"segmentation": {"size": [40, 30], "counts": "0"}}, r"size \[40, 30\], but the image is \[30, 40\]"),
        ({"segmentation": {"size": [30, 40], "counts": "o" * 6 + "0"}}, "damaged mask. .* do not add up to its size"),
        ({"segmentation": {"size": [30, 40], "counts": "0o"}}, "damaged mask. .* not the compressed run lengths"),
        ({"segmentation": {"size": [30, 40]}}, "segmentation.counts"),
    ],
)
def test_damaged_files_are_refused(records: MaskRecords, change: dict, message: str) -> None:
    data = records.to_sa1b()
    data["annotations"][0].update(change)
    with pytest.raises(InstancesError, match=message):
        MaskRecords.from_sa1b(data)


def test_other_dictionaries_are_refused() -> None:
    for data in ({}, {"image": {"width": 0, "height": 3}, "annotations": []}, {"image": 3, "annotations": []}):
        with pytest.raises(InstancesError, match="SA-1B dictionary cannot be read: image"):
            MaskRecords.from_sa1b(data)
    with pytest.raises(InstancesError, match="COCO dictionary cannot be read: images"):
        MaskRecords.from_coco({"annotations": []})


def test_label_map_by_area_puts_parts_over_wholes(records: MaskRecords) -> None:
    labels = records.to_label_map()
    assert labels.dtype == np.int32
    assert labels[6, 6] == 2  # the part
    assert labels[3, 3] == 1  # the whole around it
    assert labels[10, 17] == 1  # 414 pixels, over 500
    assert labels[7, 33] == 0  # the hole of the ring
    assert labels[0, 0] == 4


def test_label_map_by_score(records: MaskRecords) -> None:
    labels = records.to_label_map("score")
    assert labels[6, 6] == 1
    assert labels[10, 17] == 1
    assert labels[10, 30] == 3
    with pytest.raises(ConfigError, match="'area' or 'score', got 'size'"):
        records.to_label_map("size")


def test_equally_large_masks_leave_the_pixel_to_the_better_one() -> None:
    records = make_records(np.stack([rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 15)]))
    assert records.to_label_map()[7, 7] == 1


def test_filled_label_map_keeps_what_is_labeled(records: MaskRecords) -> None:
    plain, filled = records.to_label_map(), records.to_label_map(fill=True)
    assert (filled > 0).all()
    np.testing.assert_array_equal(filled[plain > 0], plain[plain > 0])
    assert filled[4, 30] == 3  # beside the ring, within its hole
    assert filled[29, 39] == 5


def test_overlay_shows_every_mask(records: MaskRecords) -> None:
    image = np.full((*SIZE_HW, 3), 128, np.uint8)
    before = image.copy()
    picture = records.overlay(image)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    assert (picture[28:, :14] == 128).all()
    assert len({tuple(picture[y, x]) for y, x in ((7, 7), (15, 5), (20, 30), (29, 2))}) == 4
    with pytest.raises(ImageError, match="40 wide and 31 high, but the masks are 40 wide and 30 high"):
        records.overlay(np.zeros((31, 40, 3), np.uint8))


class FakeDetections(SimpleNamespace):
    """Takes what the real class takes, and keeps it."""


def test_supervision(records: MaskRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("supervision")
    stub.Detections = FakeDetections
    monkeypatch.setitem(sys.modules, "supervision", stub)
    detections = records.to_supervision()
    assert detections.xyxy[1].tolist() == [5, 5, 8, 8]
    assert detections.xyxy.dtype == np.float32
    np.testing.assert_array_equal(detections.mask, records.masks())
    np.testing.assert_allclose(detections.confidence, [record.predicted_iou for record in records])
    assert detections.data["area"].tolist() == [record.area for record in records]
    assert MaskRecords((), SIZE_HW).to_supervision().xyxy.shape == (0, 4)


def test_supervision_that_is_missing(records: MaskRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        records.to_supervision()


def test_records_compare_by_value(records: MaskRecords) -> None:
    assert replace(records[0]) == records[0]
    assert {records[0]: 1}[replace(records[0])] == 1
    assert MaskRecords(records.records[::-1], SIZE_HW) == records
