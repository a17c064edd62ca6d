"""COCO and LVIS."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data_for_tests import block, picture, rle, save, save_json

from segany.core.errors import DataError
from segany.core.instance import Category
from segany.core.rle import run_lengths
from segany.data import ItemConfig, make_item, open_dataset
from segany.data.coco import CocoDataset

SIZE_HW = 6, 8
MASK = block(SIZE_HW, 1, 2, 4, 6)
POLYGON = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]
COMPRESSED = rle(MASK)
PLAIN = {"size": list(SIZE_HW), "counts": run_lengths(COMPRESSED).tolist()}


def image(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.png", "height": 6, "width": 8, **fields}


def annotation(image_number: int, segmentation: Any, **fields: Any) -> dict[str, Any]:
    return {"id": 9, "image_id": image_number, "category_id": 1, "segmentation": segmentation, "iscrowd": 0, **fields}


def dataset_file(root: Path, images: list[Any], annotations: list[Any], name: str = "instances_val2017") -> Path:
    return save_json(root / "annotations" / f"{name}.json", {"images": images, "annotations": annotations})


def test_all_forms_of_masks(tmp_path: Path) -> None:
    masks = [annotation(1, form) for form in ([POLYGON], PLAIN, COMPRESSED)]
    path = dataset_file(tmp_path, [image(1)], masks)
    save(tmp_path / "val2017" / f"{1:012d}.png", picture(SIZE_HW))
    dataset = CocoDataset(path)
    assert dataset.names == ("000000000001",)
    read = dataset.read(0)
    np.testing.assert_array_equal(read.image, picture(SIZE_HW))
    np.testing.assert_array_equal([read.instances.mask(index) for index in range(3)], [MASK] * 3)


def test_crowds_are_no_objects_and_images_without_objects_are_left_out(tmp_path: Path) -> None:
    annotations = [
        annotation(2, [POLYGON]),
        annotation(2, PLAIN, iscrowd=1),
        annotation(2, []),
        annotation(3, PLAIN, iscrowd=1),
        {"image_id": 4, "bbox": [1, 2, 3, 4]},
    ]
    path = dataset_file(tmp_path, [image(number) for number in (1, 2, 3, 4)], annotations)
    save(tmp_path / "val2017" / f"{2:012d}.png", picture(SIZE_HW))
    dataset = CocoDataset(path)
    assert dataset.names == ("000000000002",)
    read = dataset.read(0)
    assert read.instances.iscrowd.tolist() == [False, True]
    assert read.objects == read.instances[:1]
    item = make_item(read, ItemConfig(side=16), seed=0)
    assert item is not None
    assert len(item.masks) == 1


def test_what_is_annotated_is_kept(tmp_path: Path) -> None:
    fields = {"category_id": 18, "id": 7, "area": 11.5, "bbox": [2.25, 1, 4, 3.125]}
    record = {
        "images": [image(139)],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}],
        "annotations": [annotation(139, [POLYGON], **fields)],
    }
    path = save_json(tmp_path / "annotations" / "instances_val2017.json", record)
    save(tmp_path / "val2017" / f"{139:012d}.png", picture(SIZE_HW))
    dataset = CocoDataset(path)
    read = dataset.read(0)
    assert (read.image_id, read.file_name) == (139, "000000000139.png")
    assert dataset.categories == read.instances.categories == (Category(1, "person"), Category(18, "dog", "animal"))
    (one,) = read.instances
    assert (one.category, one.annotation_id, one.annotated_area) == (Category(18, "dog", "animal"), 7, 11.5)
    assert one.box_xyxy == (2.25, 1, 6.25, 4.125)
    assert one.source == "import"


@pytest.mark.parametrize(
    "place", ["val2017", "images/val2017", "images", "annotations", "annotations/images", "."], ids=str
)
def test_usual_places_of_images(tmp_path: Path, place: str) -> None:
    path = dataset_file(tmp_path, [image(1)], [annotation(1, [POLYGON])])
    save(tmp_path / place / f"{1:012d}.png", picture(SIZE_HW))
    assert len(CocoDataset(path).read(0).instances) == 1


def test_lvis_says_where_images_are_by_address(tmp_path: Path) -> None:
    images = [
        {"id": 1, "coco_url": "http://images.cocodataset.org/train2017/000000000001.png", "height": 6, "width": 8},
        {"id": 2, "coco_url": "http://images.cocodataset.org/val2017/000000000002.png", "height": 6, "width": 8},
    ]
    no_crowds = [annotation(number, [POLYGON]) for number in (1, 2)]
    for each in no_crowds:
        del each["iscrowd"]
    path = dataset_file(tmp_path, images, no_crowds, "lvis_v1_val")
    save(tmp_path / "train2017" / "000000000001.png", picture(SIZE_HW))
    save(tmp_path / "val2017" / "000000000002.png", picture(SIZE_HW, seed=1))
    dataset = CocoDataset(path)
    assert dataset.names == ("train2017/000000000001", "val2017/000000000002")
    np.testing.assert_array_equal(dataset.read(1).image, picture(SIZE_HW, seed=1))


def test_folder_of_images_given(tmp_path: Path) -> None:
    path = dataset_file(tmp_path, [image(1, file_name="deep\\er/été.png")], [annotation(1, [POLYGON])])
    save(tmp_path / "elsewhere" / "deep" / "er" / "été.png", picture(SIZE_HW))
    dataset = CocoDataset(path, tmp_path / "elsewhere")
    assert dataset.names == ("deep/er/été",)
    assert len(dataset.read(0).instances) == 1
    with pytest.raises(DataError, match=r"No image of .* Looked in .*annotations"):
        CocoDataset(path)


def test_names_tell_images_apart(tmp_path: Path) -> None:
    images = [image(1, file_name="a.png"), image(2, file_name="a.jpg")]
    path = dataset_file(tmp_path, images, [annotation(number, [POLYGON]) for number in (1, 2)])
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    assert CocoDataset(path).names == ("a.jpg", "a.png")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    images = [image(1), image(2, file_name="\ud800.png"), image(3, file_name="a\0b.png"), image(4, file_name="x" * 999)]
    path = dataset_file(tmp_path, images, [annotation(number, [POLYGON]) for number in (1, 2, 3, 4)])
    save(tmp_path / "val2017" / f"{1:012d}.png", picture(SIZE_HW))
    dataset = CocoDataset(path)
    assert "\\ud800" in dataset.names
    for index, name in enumerate(dataset.names):
        if name != "000000000001":
            with pytest.raises(DataError, match="is not in"):
                dataset.read(index)


def test_damage_names_the_image(tmp_path: Path) -> None:
    annotations = [
        annotation(1, [POLYGON]),
        annotation(2, [POLYGON]),
        annotation(3, [[*POLYGON, 1]]),
        annotation(4, [POLYGON, ["a"]]),
    ]
    path = dataset_file(tmp_path, [image(number) for number in (1, 2, 3, 4)], annotations)
    for number, size_hw in [(2, (8, 6)), (3, SIZE_HW), (4, SIZE_HW)]:
        save(tmp_path / "val2017" / f"{number:012d}.png", picture(size_hw))
    dataset = CocoDataset(path)
    for index, message in enumerate(
        [
            r"000000000001\.png is not in",
            r"is 6 wide and 8 high, but its masks are 8 wide and 6 high",
            r"image 000000000003\.png: mask 0 is damaged",
            r"image 000000000004\.png: mask 0 is damaged",
        ]
    ):
        with pytest.raises(DataError, match=message):
            dataset.read(index)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"images": []},
        {"images": [{"id": 1}], "annotations": []},
        {"images": [{"id": 1, "file_name": "a.png", "height": "x", "width": 1}], "annotations": []},
        {"images": [{"id": 1, "coco_url": "a"}], "annotations": []},
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": ["a"]},
    ],
)
def test_files_of_another_form(tmp_path: Path, record: Any) -> None:
    with pytest.raises(DataError, match="no instances file of COCO or LVIS"):
        CocoDataset(save_json(tmp_path / "a.json", record))


def test_no_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no masks"):
        CocoDataset(dataset_file(tmp_path, [image(1)], [annotation(1, PLAIN, iscrowd=1)]))
    with pytest.raises(DataError, match=r"cannot be used|No such file"):
        CocoDataset(tmp_path / "missing.json")


def areas(dataset: CocoDataset) -> dict[str, list[int]]:
    return {name: dataset.read(index).instances.areas.tolist() for index, name in enumerate(dataset.names)}


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    images = [image(1, file_name="a.png"), {**image(1), "id": "1", "file_name": "b.png"}]
    path = dataset_file(tmp_path, images, [annotation(1, [POLYGON])])
    with pytest.raises(DataError, match=r"Two images have the id 1: a\.png and b\.png"):
        CocoDataset(path)
    path = dataset_file(tmp_path, [image(1), image(1)], [annotation(1, [POLYGON])])  # one image, listed twice
    save(tmp_path / "val2017" / f"{1:012d}.png", picture(SIZE_HW))
    assert len(CocoDataset(path)) == 1


@pytest.mark.parametrize("names", [("cam1/a.png", "cam2/a.png"), ("a.png", "a.png"), ("a.png", "cam1/a.png")])
def test_two_images_that_are_one_file_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    images = [image(number, file_name=name) for number, name in zip((4, 9), names, strict=True)]
    path = dataset_file(tmp_path, images, [annotation(4, [POLYGON])])
    save(tmp_path / "val2017" / "a.png", picture(SIZE_HW))
    with pytest.raises(DataError, match=rf"{names[0]} \(id 4\) and {names[1]} \(id 9\) are one file"):
        CocoDataset(path)
    if names[0] != names[1]:
        save(tmp_path / "val2017" / names[0], picture(SIZE_HW))
        save(tmp_path / "val2017" / names[1], picture(SIZE_HW))
        assert len(CocoDataset(path)) == 1


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotations = [
        annotation(1, [POLYGON]),
        annotation(77, [POLYGON]),
        annotation(78, PLAIN),
        annotation(2, PLAIN, iscrowd=1),
        {"image_id": 3, "bbox": [1, 2, 3, 4]},
    ]
    path = dataset_file(tmp_path, [image(number) for number in (1, 2, 3)], annotations)
    save(tmp_path / "val2017" / f"{1:012d}.png", picture(SIZE_HW))
    dataset = CocoDataset(path)
    assert areas(dataset) == {"000000000001": [12]}
    assert dataset.omitted == {
        "annotations without a mask": 1,
        "annotations of images that are not listed": 2,
        "images without objects": 2,
    }
    (record,) = caplog.records
    assert "2 annotations are left out, since their images are not listed, such as image 78" in record.getMessage()


def test_ids_and_flags_as_text(tmp_path: Path) -> None:
    annotations = [
        annotation("7", [POLYGON], category_id="3", iscrowd="0", id="5"),
        annotation(7.0, [POLYGON], category_id=3, iscrowd="false", id=6),
        annotation(7, PLAIN, category_id=3.0, iscrowd="1", id=8),
    ]
    record = {"images": [image(7)], "annotations": annotations, "categories": [{"id": "3", "name": "cat"}]}
    path = save_json(tmp_path / "annotations" / "instances_val2017.json", record)
    save(tmp_path / "val2017" / f"{7:012d}.png", picture(SIZE_HW))
    read = CocoDataset(path).read(0)
    assert read.image_id == 7
    assert [one.category for one in read.instances] == [Category(3, "cat")] * 3
    assert read.instances.iscrowd.tolist() == [False, False, True]
    assert read.instances.annotation_id.tolist() == [5, 6, 8]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_unicode_forms(tmp_path: Path, forms: tuple[str, str]) -> None:
    listed, there = (unicodedata.normalize(form, "été/café.png") for form in forms)
    mixed = f"{unicodedata.normalize('NFC', 'été')}/{unicodedata.normalize('NFD', 'thé.png')}"
    path = dataset_file(
        tmp_path,
        [image(1, file_name=listed), image(2, file_name=unicodedata.normalize(forms[0], "été/thé.png"))],
        [annotation(1, [POLYGON]), annotation(2, [POLYGON])],
    )
    save(tmp_path / "val2017" / there, picture(SIZE_HW))
    save(tmp_path / "val2017" / mixed, picture(SIZE_HW))
    assert list(areas(CocoDataset(path)).values()) == [[12], [12]]


@pytest.mark.parametrize("name", ["../secret.png", "/{root}/secret.png", "val2017/../../secret.png", "..\\secret.png"])
def test_images_outside_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "dataset"
    name = name.replace("/{root}", str(tmp_path))
    path = dataset_file(root, [image(1, file_name=name)], [annotation(1, [POLYGON])])
    save(tmp_path / "secret.png", picture(SIZE_HW))
    save(root / "secret.png", picture(SIZE_HW))
    for opening in (CocoDataset, open_dataset):
        with pytest.raises(DataError, match=r"secret\.png lies outside of .* --trust-paths"):
            opening(path)
        (trusted,) = opening(path, trust_paths=True).names
        assert trusted.rpartition("/")[2] == "secret"
        assert ".." not in trusted  # names of results are made of it
        assert not trusted.startswith("/")


@pytest.mark.parametrize("name", [".", "/", "..", "a/.."])
def test_names_of_no_file_are_refused(tmp_path: Path, name: str) -> None:
    path = dataset_file(tmp_path, [image(1, file_name=name)], [annotation(1, [POLYGON])])
    with pytest.raises(DataError, match="names no file"):
        CocoDataset(path, trust_paths=True)


def test_claims_of_huge_sizes_cost_nothing(tmp_path: Path) -> None:
    """The masks are bounded by the image, whatever the file says."""
    far = [0, 0, 5e7, 0, 5e7, 5e7]
    images = [image(1, height=10**9, width=10**9), image(2, height=None, width=None)]
    path = dataset_file(tmp_path, images, [annotation(1, [far]), annotation(2, [far])])
    for number in (1, 2):
        save(tmp_path / "val2017" / f"{number:012d}.png", picture(SIZE_HW, seed=number))
    dataset = CocoDataset(path)
    for index, message in enumerate(["its masks are 1000000000 wide", "a corner far outside"]):
        with pytest.raises(DataError, match=message):
            dataset.read(index)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "instances.json")
    with pytest.raises(DataError, match="not a file but a pipe"):
        CocoDataset(tmp_path / "instances.json")
