"""YOLO's segmentation datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data_for_tests import Shapes, block, picture, save

from segany import Category, Instances, InstancesError
from segany.core.errors import DataError
from segany.data import YoloFolder, open_dataset, write_yolo
from segany.data.formats.yolo import from_yolo, to_yolo

SIZE_HW = 6, 8
SQUARE = "0.25 0.5 0.75 0.5 0.75 1 0.25 1"
MASK = block(SIZE_HW, 3, 2, 6, 6)


def add(root: Path, image: str, label: str, text: str) -> None:
    save(root / f"{image}.png", picture(SIZE_HW))
    (root / label).parent.mkdir(parents=True, exist_ok=True)
    (root / f"{label}.txt").write_text(text)


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/a", "labels/a"), ("images/train/a", "labels/train/a"), ("train/images/a", "train/labels/a")],
)
def test_layouts(tmp_path: Path, image: str, label: str) -> None:
    add(tmp_path, image, label, f"1 {SQUARE}\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")
    for folder in (tmp_path, tmp_path / "data.yaml", tmp_path / image.split("/", maxsplit=1)[0]):
        dataset = open_dataset(folder)
        assert isinstance(dataset, YoloFolder)
        assert len(dataset.names) == len(dataset) == 1
        (one,) = dataset.read(0).instances
        assert one.category == Category(1, "dog")
        np.testing.assert_array_equal(one.mask, MASK)


def test_labels_beside_images(tmp_path: Path) -> None:
    add(tmp_path, "a", "a", f"0 {SQUARE}\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = YoloFolder(tmp_path)
    assert dataset.categories == (Category(0, "cat"), Category(1, "dog"))
    assert len(dataset.read(0).instances) == 1


@pytest.mark.parametrize("names", ["[cat, dog]", "\n- cat\n- dog", "\n  0: cat\n  1: dog", "\n  1: 'dog'\n  0: cat"])
def test_names_of_classes(tmp_path: Path, names: str) -> None:
    add(tmp_path, "images/a", "labels/a", f"0 {SQUARE}\n")
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    assert YoloFolder(tmp_path).categories == (Category(0, "cat"), Category(1, "dog"))


@pytest.mark.parametrize("text", ["names: 3", "names: {a: b}", "[", "- a"])
def test_names_that_are_none(tmp_path: Path, text: str) -> None:
    add(tmp_path, "images/a", "labels/a", f"0 {SQUARE}\n")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml"):
        YoloFolder(tmp_path)


def test_classes_without_names(tmp_path: Path) -> None:
    add(tmp_path, "images/a", "labels/a", f"7 {SQUARE}\n")
    assert YoloFolder(tmp_path).read(0).instances.categories == (Category(7, "7"),)


def test_images_without_labels_and_boxes_are_left_out(tmp_path: Path) -> None:
    add(tmp_path, "images/a", "labels/a", f"0 {SQUARE}\n\n0 0.5 0.5 0.25 0.25\n")
    add(tmp_path, "images/b", "labels/b", "")
    save(tmp_path / "images" / "c.png", picture(SIZE_HW))
    dataset = YoloFolder(tmp_path)
    assert dataset.left_out == ("images/c",)
    assert [len(dataset.read(index).instances) for index in range(2)] == [1, 0]


def test_boxes_alone_are_no_masks(tmp_path: Path) -> None:
    add(tmp_path, "images/a", "labels/a", "0 0.5 0.5 0.25 0.25\n")
    with pytest.raises(DataError, match="boxes and no polygons"):
        YoloFolder(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    with pytest.raises(DataError, match="no image with a label file"):
        YoloFolder(tmp_path)


@pytest.mark.parametrize(
    "line", ["0", "0 1 1 0", "x 0 0 1 1 1 0", "0 0 0 1 1 x 0", "0 0 0 1 1 1", "-1 0 0 1 1 1 0", "0 0 0 1 1 nan 0",
             "0 0 0 1 1 99 0", "nan 0 0 1 1 1 0"],
)  # fmt: skip
def test_damage_names_file_and_line(tmp_path: Path, line: str) -> None:
    add(tmp_path, "images/a", "labels/a", f"0 {SQUARE}\n{line}")
    with pytest.raises(DataError, match=r"a\.txt: Line 2 (is no polygon|holds no numbers)"):
        YoloFolder(tmp_path).read(0)


def test_what_is_written() -> None:
    classes = [Category(0, "cat"), Category(1, "dog")]
    instances = Instances.from_masks(
        np.stack([MASK, np.zeros(SIZE_HW, bool)]), category_ids=[18, 18], categories=[Category(18, "dog")]
    )
    assert to_yolo(instances, classes) == f"1 {SQUARE}\n"
    with pytest.raises(InstancesError, match=r"no class 'dog'\. Classes: cat"):
        to_yolo(instances, classes[:1])


def test_parts_and_holes_are_joined_by_bridges() -> None:
    mask = block(SIZE_HW, 0, 0, 6, 4) & ~block(SIZE_HW, 1, 1, 3, 3)
    mask |= block(SIZE_HW, 4, 6, 6, 8)
    text = to_yolo(Instances.from_masks(mask))
    assert text.count("\n") == 1
    np.testing.assert_array_equal(from_yolo(text, SIZE_HW)[0].mask, mask)


def test_noise_of_many_parts() -> None:
    mask = np.random.default_rng(0).random((60, 80)) > 0.5
    np.testing.assert_array_equal(from_yolo(to_yolo(Instances.from_masks(mask)), (60, 80))[0].mask, mask)


def test_writing_a_dataset(tmp_path: Path) -> None:
    data: Any = Shapes(4, damaged=frozenset({1}), without_masks=frozenset({2}))
    report = write_yolo(data, tmp_path)
    assert (report.images, report.instances, report.without_class) == (3, 4, 4)
    assert report.skipped == (("folder/001", "image 1 is damaged"),)
    read = open_dataset(tmp_path)
    assert read.names == ("images/folder/000", "images/folder/002", "images/folder/003")
    assert [one.category.name for one in read.read(0).instances if one.category] == ["object", "object"]
    np.testing.assert_array_equal(read.read(2).image, data.read(3).image)
