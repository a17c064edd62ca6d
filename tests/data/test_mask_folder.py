"""Folders of images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data_for_tests import block, encoded, picture, save, save_json

from segany.core.errors import ConfigError, DataError
from segany.core.instance import Category
from segany.data import open_dataset
from segany.data.mask_folder import MaskFolder

SIZE_HW = 6, 8
LABELS = np.zeros(SIZE_HW, dtype=np.uint8)
LABELS[0:2, 0:3] = 1
LABELS[3:6, 4:8] = 5
TWO = [LABELS == 1, LABELS == 5]


def test_label_maps(tmp_path: Path) -> None:
    for name in ("b", "sub/a"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / f"{name}.jpg").write_bytes(encoded(picture(SIZE_HW), "JPEG"))
    save(tmp_path / "masks" / "b.png", LABELS)
    save(tmp_path / "masks" / "sub" / "a_mask.png", LABELS)
    dataset = MaskFolder(tmp_path)
    assert dataset.names == ("b", "sub/a")
    for index in range(2):
        read = dataset.read(index)
        np.testing.assert_array_equal([read.instances.mask(0), read.instances.mask(1)], TWO)


def test_objects(tmp_path: Path) -> None:
    save(tmp_path / "img" / "a.png", picture(SIZE_HW))
    save(tmp_path / "GT" / "a.png", LABELS)
    assert len(MaskFolder(tmp_path).read(0).instances) == 2
    foreground = MaskFolder(tmp_path, "foreground").read(0)
    np.testing.assert_array_equal(foreground.instances.mask(0), LABELS == 5)  # 1 is below half
    save(tmp_path / "GT" / "a.png", np.where(LABELS, 255, 0).astype(np.uint8))
    assert len(MaskFolder(tmp_path).read(0).instances) == 1
    parts = MaskFolder(tmp_path, "parts").read(0)
    np.testing.assert_array_equal([parts.instances.mask(0), parts.instances.mask(1)], TWO)
    with pytest.raises(ConfigError, match="objects must be one of"):
        MaskFolder(tmp_path, "value")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("masks/labels.json", '{"1": "cat", "5": "dog", "9": "cat"}'),
        ("labels.json", '["background", "cat", "", "", "", "dog"]'),
        ("masks/classes.txt", "background\ncat\n\n\n\ndog\n"),
    ],
)
def test_names_of_values_are_classes(tmp_path: Path, name: str, text: str) -> None:
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    save(tmp_path / "masks" / "a.png", LABELS)
    (tmp_path / name).write_text(text)
    for opened in (MaskFolder(tmp_path), open_dataset(tmp_path)):
        instances = opened.read(0).instances
        assert [one.category for one in instances] == [Category(1, "cat"), Category(5, "dog")]
    parts = MaskFolder(tmp_path, "parts").read(0).instances
    assert [one.category for one in parts] == [None] * len(parts)


def test_names_of_one_label_map_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", picture(SIZE_HW))
        save(tmp_path / "masks" / f"{name}_labels.png", LABELS)
    fact = {"name": "cat", "id": 17, "supercategory": "animal", "object_id": 4}
    save_json(tmp_path / "masks" / "a_labels.json", {"1": fact, "5": {**fact, "object_id": 2}})
    save_json(tmp_path / "masks" / "labels.json", {"5": "dog"})
    first, second = (MaskFolder(tmp_path).read(index).instances for index in range(2))
    assert first.categories == (Category(17, "cat", "animal"),)
    assert (first.category_ids.tolist(), first.object_ids.tolist()) == ([17, 17], [4, 2])
    assert [one.category for one in second] == [None, Category(5, "dog")]


@pytest.mark.parametrize("record", [3, {"one": "cat"}, {"1": 3}, {"1": {"name": "a", "id": "x"}}])
def test_names_of_another_form(tmp_path: Path, record: Any) -> None:
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    save(tmp_path / "masks" / "a.png", LABELS)
    save_json(tmp_path / "masks" / "labels.json", record)
    with pytest.raises(DataError, match=r"labels\.json does not name the values"):
        MaskFolder(tmp_path)


def test_a_picture_an_object(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    overlapping = [block(SIZE_HW, 0, 0, 4, 4), block(SIZE_HW, 2, 2, 6, 6)]
    for number, mask in enumerate(overlapping):
        save(tmp_path / "masks" / "a" / f"{number}.png", mask.astype(np.uint8) * np.uint8(255))
    save(tmp_path / "masks" / "a" / "2.png", np.zeros(SIZE_HW, np.uint8))
    read = MaskFolder(tmp_path).read(0)
    np.testing.assert_array_equal([read.instances.mask(index) for index in range(len(read.instances))], overlapping)


def test_folders_of_any_name(tmp_path: Path) -> None:
    save(tmp_path / "x" / "NORMAL" / "a.png", picture(SIZE_HW))
    save(tmp_path / "x" / "y" / "NORMAL" / "a.png", LABELS)  # inside of the other folder
    dataset = MaskFolder(tmp_path / "x", masks=tmp_path / "x" / "y")
    assert dataset.names == ("NORMAL/a",)
    assert len(dataset.read(0).instances) == 2


def test_what_is_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", picture(SIZE_HW))
    for name in ("b", "c"):
        save(tmp_path / "masks" / f"{name}.png", LABELS)
    dataset = MaskFolder(tmp_path)
    assert dataset.names == ("b", "c")
    assert dataset.left_out == ("a",)
    with pytest.raises(DataError, match=r"c\.png has no image"):
        dataset.read(1)


def test_masks_of_another_size(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture((8, 6)))
    save(tmp_path / "masks" / "a.png", LABELS)
    with pytest.raises(DataError, match=r"a\.png is 6 wide and 8 high, but its masks are 8 wide and 6 high"):
        MaskFolder(tmp_path).read(0)
    save(tmp_path / "masks" / "a" / "1.png", LABELS[:5])
    with pytest.raises(DataError, match="of different sizes"):
        MaskFolder(tmp_path).read(0)


def test_truncated_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(encoded(picture((60, 80)), "JPEG")[:2000])
    save(tmp_path / "masks" / "a.png", np.ones((60, 80), np.uint8))
    with pytest.raises(DataError, match=r"a\.jpg"):
        MaskFolder(tmp_path).read(0)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder images, image"):
        MaskFolder(tmp_path)
    save(tmp_path / "images" / "a.png", picture(SIZE_HW))
    with pytest.raises(DataError, match="it has images"):
        MaskFolder(tmp_path)
    save(tmp_path / "masks" / "b.png", LABELS)
    with pytest.raises(DataError, match="empty"):
        MaskFolder(tmp_path)
