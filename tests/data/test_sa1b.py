"""Folders like those of SA-1B."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import block, picture, sa1b_record, save, save_json

from segany.core.errors import DataError
from segany.data.sa1b import Sa1bFolder

SIZE_HW = 6, 8
MASKS = [block(SIZE_HW, 0, 0, 2, 3), block(SIZE_HW, 1, 1, 5, 6)]


def add(images: Path, records: Path, name: str) -> None:
    save(images / f"{name}.png", picture(SIZE_HW))
    save_json(records / f"{name}.json", sa1b_record(MASKS, SIZE_HW))


def test_side_by_side(tmp_path: Path) -> None:
    add(tmp_path, tmp_path, "sa_2")
    add(tmp_path / "sub", tmp_path / "sub", "sa_1")
    (tmp_path / "._sa_2.png").write_bytes(b"what macOS leaves behind")
    dataset = Sa1bFolder(tmp_path)
    assert dataset.names == ("sa_2", "sub/sa_1")
    assert len(dataset) == 2
    read = dataset.read(1)
    assert read.name == "sub/sa_1"
    np.testing.assert_array_equal(read.image, picture(SIZE_HW))
    np.testing.assert_array_equal([read.instances.mask(index) for index in range(len(read.instances))], MASKS)
    assert read.instances.boxes_xyxy.tolist() == [[0, 0, 3, 2], [1, 1, 6, 5]]


def test_in_separate_folders(tmp_path: Path) -> None:
    add(tmp_path / "images", tmp_path / "annotations", "sa_1")
    add(tmp_path / "images", tmp_path / "annotations", "sa_2")
    dataset = Sa1bFolder(tmp_path)
    assert dataset.names == ("images/sa_1", "images/sa_2")
    assert len(dataset.read(0).instances) == 2


def test_same_names_in_several_folders(tmp_path: Path) -> None:
    add(tmp_path / "a", tmp_path / "a", "1")
    add(tmp_path / "b", tmp_path / "b", "1")
    assert Sa1bFolder(tmp_path).names == ("a/1", "b/1")


def test_what_is_left_alone(tmp_path: Path) -> None:
    add(tmp_path, tmp_path, "sa_1")
    save(tmp_path / "sa_2.png", picture(SIZE_HW))
    save_json(tmp_path / "sa_3.json", sa1b_record(MASKS, SIZE_HW))
    dataset = Sa1bFolder(tmp_path)
    assert dataset.names == ("sa_1", "sa_3")
    assert dataset.left_out == ("sa_2",)
    with pytest.raises(DataError, match=r"sa_3\.json has no image"):
        dataset.read(1)


def test_unusual_names(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9 雪", "cafe\u0301 雪"  # the same letters
    save(tmp_path / f"{composed}.png", picture(SIZE_HW))
    save_json(tmp_path / f"{apart}.json", sa1b_record(MASKS, SIZE_HW))
    if sys.platform == "linux":
        add(tmp_path, tmp_path, os.fsdecode(b"no \xff text"))
    dataset = Sa1bFolder(tmp_path)
    assert dataset.names[0] == composed
    for index, name in enumerate(dataset.names):
        assert name.encode().decode() == name
        assert len(dataset.read(index).instances) == 2


def test_damage_names_the_file(tmp_path: Path) -> None:
    for name in "abcde":
        add(tmp_path, tmp_path, name)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    save(tmp_path / "b.png", picture((5, 8)))
    (tmp_path / "c.json").write_text('{"image": {"hei')
    save_json(tmp_path / "d.json", sa1b_record([], SIZE_HW))
    dataset = Sa1bFolder(tmp_path)
    (tmp_path / "e.png").unlink()
    for index, message in [
        (0, r"a\.png"),
        (1, r"b\.png is 8 wide and 5 high, but its masks are 8 wide and 6 high"),
        (2, r"c\.json cannot be read as JSON: .* cut off"),
        (4, r"There is no file .*e\.png"),
    ]:
        with pytest.raises(DataError, match=message):
            dataset.read(index)
    assert len(dataset.read(3).instances) == 0


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        Sa1bFolder(tmp_path / "missing")
    save(tmp_path / "a.png", picture(SIZE_HW))
    with pytest.raises(DataError, match="empty"):
        Sa1bFolder(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        Sa1bFolder(tmp_path / "a.png")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    add(tmp_path / "images", tmp_path / "annotations", "sa_1")
    save(tmp_path / "images" / "sa_1.jpg", picture(SIZE_HW))
    with pytest.raises(DataError, match="differ only in their endings"):
        Sa1bFolder(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_back(tmp_path: Path) -> None:
    add(tmp_path / "data", tmp_path / "data", "sa_1")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    assert Sa1bFolder(tmp_path / "link").names == ("sa_1",)
