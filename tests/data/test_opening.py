"""Opening a dataset of any layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import block, encoded, picture, sa1b_record, save, save_json, save_tar

from segany.core.errors import ConfigError, DataError
from segany.data import CocoDataset, MaskFolder, Sa1bFolder, TarShards, VideoFrames, YoloFolder, open_dataset

SIZE_HW = 6, 8
MASK = block(SIZE_HW, 0, 0, 2, 3)
LABELS = MASK.astype(np.uint8)
RECORD = sa1b_record([MASK], SIZE_HW)
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": 1, "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]]}],
}


def sa1b(root: Path) -> None:
    save(root / "images" / "sa_1.png", picture(SIZE_HW))
    save_json(root / "annotations" / "sa_1.json", RECORD)


def coco(root: Path) -> None:
    save(root / "images" / "a.png", picture(SIZE_HW))
    save_json(root / "annotations" / "instances_val.json", INSTANCES)
    save_json(root / "annotations" / "captions_val.json", {})


def coco_beside(root: Path) -> None:
    save(root / "a.png", picture(SIZE_HW))
    save_json(root / "_annotations.coco.json", INSTANCES)


def yolo(root: Path) -> None:
    save(root / "images" / "train" / "a.png", picture(SIZE_HW))
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text("0 0 0 0.375 0 0.375 0.3333333 0 0.3333333\n")


def masks(root: Path) -> None:
    save(root / "Images" / "a.png", picture(SIZE_HW))
    save(root / "Masks" / "a.png", LABELS)
    save_json(root / "about.json", {})


def davis(root: Path) -> None:
    save(root / "JPEGImages" / "480p" / "bear" / "00000.png", picture(SIZE_HW))
    save(root / "Annotations" / "480p" / "bear" / "00000.png", LABELS)


def sav(root: Path) -> None:
    save(root / "JPEGImages_24fps" / "sav_1" / "00000.png", picture(SIZE_HW))
    save(root / "Annotations_6fps" / "sav_1" / "000" / "00000.png", LABELS)


def sav_training(root: Path) -> None:
    save(root / "sav_1" / "00000.png", picture(SIZE_HW))
    segmentation = RECORD["annotations"][0]["segmentation"]
    record = {"video_frame_count": 1, "video_height": 6, "video_width": 8}
    save_json(root / "sav_1_manual.json", {**record, "masklet_id": [1], "masklet": [[segmentation]]})


def shards(root: Path) -> None:
    image = encoded(picture(SIZE_HW), "JPEG")
    save_tar(root / "s.tar", {"a.jpg": image, "a.png": encoded(LABELS, "PNG")})


LAYOUTS: list[tuple[Callable[[Path], None], type]] = [
    (sa1b, Sa1bFolder),
    (coco, CocoDataset),
    (coco_beside, CocoDataset),
    (yolo, YoloFolder),
    (masks, MaskFolder),
    (davis, VideoFrames),
    (sav, VideoFrames),
    (sav_training, VideoFrames),
    (shards, TarShards),
]


@pytest.mark.parametrize(("write", "kind"), LAYOUTS)
def test_layouts_are_recognized(tmp_path: Path, write: Callable[[Path], None], kind: type) -> None:
    write(tmp_path)
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, kind)
    assert len(dataset) == len(dataset.names) == 1
    np.testing.assert_array_equal(dataset.read(0).instances.mask(0), MASK)


def test_files_and_patterns(tmp_path: Path) -> None:
    coco(tmp_path)
    shards(tmp_path)
    assert isinstance(open_dataset(tmp_path / "annotations" / "instances_val.json"), CocoDataset)
    assert isinstance(open_dataset(tmp_path / "s.tar"), TarShards)
    assert isinstance(open_dataset(str(tmp_path / "{s,s}.tar")), TarShards)


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    coco(tmp_path)
    save(tmp_path / "masks" / "a.png", LABELS)
    assert isinstance(open_dataset(tmp_path), CocoDataset)
    assert isinstance(open_dataset(tmp_path, "masks"), MaskFolder)
    with pytest.raises(
        ConfigError, match="layout must be one of sa1b, labelme, coco, yolo, masks, videos, shards, got 'voc'"
    ):
        open_dataset(tmp_path, "voc")  # type: ignore[arg-type]


def test_several_datasets(tmp_path: Path) -> None:
    coco(tmp_path)
    save_json(tmp_path / "annotations" / "instances_train.json", INSTANCES)
    with pytest.raises(DataError, match=r"give one of .*instances_train\.json, .*instances_val\.json"):
        open_dataset(tmp_path)


def test_unknown_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match="is empty"):
        open_dataset(tmp_path)
    save(tmp_path / "photo.png", picture(SIZE_HW))
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"It holds photo\.png, sub/\. Looked for:\n  shards"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="is no dataset"):
        open_dataset(tmp_path / "photo.png")
