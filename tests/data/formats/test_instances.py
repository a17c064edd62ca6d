"""Every format of automatic masks holds what it says, as other programs read it."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.records_for_tests import SIZE_HW, make_records, rectangle

from segany.data.formats.instances import DEFAULT_RECORD_FORMATS, RECORD_FORMATS, RecordedImage
from segany.data.formats.records import MaskRecords

IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
RECORDS = make_records(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), rectangle(30, 3, 31, 4)]))


def encoded(name: str, records: MaskRecords = RECORDS, **options: object) -> dict[str, bytes]:
    return dict(RECORD_FORMATS[name](RecordedImage(Path("photos/a.jpg"), IMAGE, records, **options)))


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def test_defaults_are_known() -> None:
    assert set(DEFAULT_RECORD_FORMATS) <= set(RECORD_FORMATS)


def test_coco_and_sa1b_round_trip() -> None:
    coco = json.loads(encoded("coco")["_auto_coco.json"])
    assert coco["images"][0]["file_name"] == "a.jpg"
    assert MaskRecords.from_coco(coco) == RECORDS
    sa1b = json.loads(encoded("sa1b")["_auto_sa1b.json"])
    assert sa1b["image"]["file_name"] == "a.jpg"
    assert MaskRecords.from_sa1b(sa1b) == RECORDS


def test_label_map() -> None:
    labels = opened(encoded("label-map")["_auto_labels.png"])
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, RECORDS.to_label_map())
    options = {"label_order": "score", "label_fill": True}
    labels = opened(encoded("label-map", **options)["_auto_labels.png"])
    np.testing.assert_array_equal(labels, RECORDS.to_label_map("score", fill=True))


def test_label_map_of_more_labels_than_a_png_holds() -> None:
    single = make_records(rectangle(39, 29, 40, 30)[None])[0]
    ((name, data),) = encoded("label-map", MaskRecords((single,) * 65_536, SIZE_HW)).items()
    assert name == "_auto_labels.npy"
    labels = np.load(io.BytesIO(data))
    assert labels.dtype == np.int32
    assert labels[29, 39] == 1


def test_folder_of_masks() -> None:
    files = encoded("masks-png")
    assert list(files) == [f"_auto_masks/{name}" for name in ("0.png", "1.png", "2.png", "metadata.csv")]
    for index, mask in enumerate(RECORDS.masks()):
        np.testing.assert_array_equal(opened(files[f"_auto_masks/{index}.png"]), mask * np.uint8(255))
    rows = list(csv.DictReader(io.StringIO(files["_auto_masks/metadata.csv"].decode())))
    assert len(rows) == 3
    assert rows[1] == {
        "id": "1", "area": "16", "bbox_x0": "5.0", "bbox_y0": "5.0", "bbox_w": "3.0", "bbox_h": "3.0",
        "point_input_x": "12.5", "point_input_y": "3.25", "predicted_iou": "0.99", "stability_score": "0.97",
        "crop_box_x0": "0", "crop_box_y0": "0", "crop_box_w": "40", "crop_box_h": "30",
    }  # fmt: skip


def test_overlay() -> None:
    np.testing.assert_array_equal(opened(encoded("overlay")["_auto_overlay.png"]), RECORDS.overlay(IMAGE))


def test_npz() -> None:
    with np.load(io.BytesIO(encoded("npz")["_auto.npz"])) as arrays:
        np.testing.assert_array_equal(arrays["masks"], RECORDS.masks())
        assert arrays["masks"].dtype == np.bool_
        assert arrays["area"].tolist() == [record.area for record in RECORDS]
        assert arrays["bbox_xywh"][1].tolist() == [5, 5, 3, 3]
        assert arrays["point_xy"].shape == (3, 2)
        np.testing.assert_allclose(arrays["predicted_iou"], [1, 0.99, 0.98])
        assert arrays["crop_box_xywh"][0].tolist() == [0, 0, 40, 30]


@pytest.mark.parametrize("name", RECORD_FORMATS)
def test_no_masks_in_every_format(name: str) -> None:
    files = encoded(name, MaskRecords((), SIZE_HW))
    assert all(files.values())
    if name == "npz":
        with np.load(io.BytesIO(files["_auto.npz"])) as arrays:
            assert arrays["masks"].shape == (0, *SIZE_HW)
            assert arrays["bbox_xywh"].shape == (0, 4)
