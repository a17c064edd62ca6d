"""Datasets of videos."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import block, encoded, picture, rle, save, save_json
from tests.videos_for_tests import SIZE_HW as VIDEO_HW
from tests.videos_for_tests import number_in, write_video

from segany.core.errors import DataError
from segany.core.rle import decode_mask
from segany.data.formats.mask_image import MaskOptions
from segany.data.opening import open_dataset
from segany.data.video_folder import VideoFrames, read_video_dataset

SIZE_HW = 6, 8
ONE, TWO = block(SIZE_HW, 0, 0, 2, 3), block(SIZE_HW, 1, 2, 6, 8)
EMPTY = np.zeros(SIZE_HW, dtype=np.bool_)


def save_frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(encoded(picture(SIZE_HW, number), "JPEG"))


def gray(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(255)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for video in ("dog", "bear"):
        save_frames(tmp_path / "JPEGImages" / "480p" / video, 3)
        for number in (0, 2):
            labels = np.where(ONE & (number == 0), 1, np.where(TWO, 2, 0)).astype(np.uint8)
            path = tmp_path / "Annotations" / "480p" / video / f"{number:05d}.png"
            save(path, labels, palette=list(range(256)) * 3)
    return tmp_path


@pytest.fixture
def sav(tmp_path: Path) -> Path:
    save_frames(tmp_path / "JPEGImages_24fps" / "sav_1", 6)
    for object_id, masks in {"000": (ONE, TWO), "001": (TWO, EMPTY)}.items():
        for number, mask in zip((0, 4), masks, strict=True):
            save(tmp_path / "Annotations_6fps" / "sav_1" / object_id / f"{number:05d}.png", gray(mask))
    return tmp_path


def masklets(count: int, frames: int) -> dict[str, object]:
    rows = [[rle(TWO), rle(ONE if number else EMPTY)] for number in range(count)]
    return {
        "video_id": "sav_000001",
        "video_frame_count": float(frames),
        "video_height": 6.0,
        "video_width": 8.0,
        "masklet": rows,
        "masklet_id": [7, 0],
    }


def test_davis(davis: Path) -> None:
    bear, dog = read_video_dataset(davis)
    assert (bear.name, dog.name) == ("bear", "dog")
    assert bear.annotated == (0, 2)
    assert bear.object_ids == (1, 2)
    assert list(bear.masks(0)) == [1, 2]
    assert list(bear.masks(2)) == [2]  # the other is not visible there
    np.testing.assert_array_equal(decode_mask(bear.masks(0)[2]), TWO & ~ONE)
    with bear.open() as source:
        assert source.count == 3
        np.testing.assert_array_equal(source.read(2), bear.read_frame(2))


def test_frames_as_images(davis: Path) -> None:
    dataset = VideoFrames(davis)
    assert dataset.names == ("bear/00000", "bear/00002", "dog/00000", "dog/00002")
    read = dataset.read(1)
    assert read.instances.object_ids.tolist() == list(dataset.videos[0].masks(2))
    np.testing.assert_array_equal(read.instances.masks(), [TWO])


def test_without_a_folder_for_the_resolution(davis: Path) -> None:
    for name in ("JPEGImages", "Annotations"):
        for video in ("dog", "bear"):
            (davis / name / "480p" / video).rename(davis / name / video)
        (davis / name / "480p").rmdir()
    assert [video.name for video in read_video_dataset(davis)] == ["bear", "dog"]


def test_sav_with_a_picture_an_object(sav: Path) -> None:
    (video,) = read_video_dataset(sav)
    assert video.annotated == (0, 4)
    assert video.object_ids == (0, 1)
    np.testing.assert_array_equal(decode_mask(video.masks(0)[0]), ONE)
    np.testing.assert_array_equal(decode_mask(video.masks(0)[1]), TWO)
    assert list(video.masks(4)) == [0]
    assert VideoFrames(sav).names == ("sav_1/00000", "sav_1/00004")


def test_masklets_beside_frames(tmp_path: Path) -> None:
    save_frames(tmp_path / "sav_000001", 6)
    save_json(tmp_path / "sav_000001_manual.json", masklets(2, 6))
    save_json(tmp_path / "sav_000001_auto.json", masklets(6, 6))
    (video,) = read_video_dataset(tmp_path)  # the manual ones count
    assert video.name == "sav_000001"
    assert video.annotated == (0, 4)
    assert list(video.masks(0)) == [7]
    assert list(video.masks(4)) == [0, 7]
    np.testing.assert_array_equal(decode_mask(video.masks(4)[0]), ONE)
    assert VideoFrames(tmp_path).names == ("sav_000001/00000", "sav_000001/00004")
    assert len(VideoFrames(tmp_path).read(1).instances) == 2


def test_masklets_beside_a_video_file(tmp_path: Path) -> None:
    write_video(tmp_path / "sav_000001.mp4", 9)
    record = masklets(9, 9)
    height, width = VIDEO_HW
    record["video_height"], record["video_width"] = height, width
    record["masklet"] = [[rle(block(VIDEO_HW, 0, 0, 5, 5))] * 2] * 9
    save_json(tmp_path / "sav_000001_auto.json", record)
    dataset = VideoFrames(tmp_path)
    assert dataset.videos[0].annotated == tuple(range(9))
    assert number_in(dataset.read(6).image) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_frame_count": 99}, "do not go with 99 frames"),
        ({"masklet_id": [1]}, "not with 1 objects"),
        ({"masklet_id": [1, 1]}, "damaged"),
        ({"masklet": []}, "0 annotated frames"),
        ({"masklet": None}, "no masklet file"),
        ({"video_height": None}, "no masklet file"),
    ],
)
def test_damaged_masklets(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save_frames(tmp_path / "sav_000001", 6)
    save_json(tmp_path / "sav_000001_manual.json", {**masklets(2, 6), **change})
    with pytest.raises(DataError, match=message):
        read_video_dataset(tmp_path)


def test_masklets_of_another_size(tmp_path: Path) -> None:
    save_frames(tmp_path / "sav_000001", 6)
    save_json(tmp_path / "sav_000001_manual.json", {**masklets(2, 6), "video_height": 7})
    with pytest.raises(DataError, match="frame 0, object 0"):
        VideoFrames(tmp_path).read(0)


def test_masks_without_frames(davis: Path) -> None:
    save(davis / "Annotations" / "480p" / "dog" / "00009.png", gray(ONE))
    with pytest.raises(DataError, match=r"00009\.png belongs to no frame"):
        read_video_dataset(davis)
    (davis / "Annotations" / "480p" / "dog" / "00009.png").unlink()
    (davis / "Annotations" / "480p" / "cat").mkdir()
    with pytest.raises(DataError, match="cat has masks but no frames"):
        read_video_dataset(davis)


def test_no_videos(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DataError, match=r"Looked for JPEGImages.*found Annotations"):
        read_video_dataset(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match="empty"):
        read_video_dataset(tmp_path)


def test_masks_of_another_size_than_the_frame(davis: Path) -> None:
    save(davis / "Annotations" / "480p" / "bear" / "00000.png", np.ones((8, 6), np.uint8))
    with pytest.raises(DataError, match="bear/00000 is 8 wide and 6 high"):
        VideoFrames(davis).read(0)


def test_names_in_other_unicode_forms(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "thé") for form in ("NFC", "NFD"))
    (tmp_path / "JPEGImages" / decomposed).mkdir(parents=True)
    (tmp_path / "JPEGImages" / decomposed / f"{composed}.jpg").write_bytes(encoded(picture(SIZE_HW), "JPEG"))
    save(tmp_path / "Annotations" / composed / f"{decomposed}.png", ONE.astype(np.uint8))
    save_json(tmp_path / "meta.json", {"videos": {decomposed: {}}})
    (video,) = read_video_dataset(tmp_path)
    assert list(video.masks(0)) == [1]
    (tmp_path / "sav_val.txt").write_text(decomposed)
    assert len(read_video_dataset(tmp_path, "val")) == 1


def test_two_frames_of_one_name_are_refused(davis: Path) -> None:
    save(davis / "JPEGImages" / "480p" / "dog" / "00000.png", picture(SIZE_HW))
    with pytest.raises(DataError, match=r"00000\.jpg and .*00000\.png differ only in their endings"):
        read_video_dataset(davis)


def test_masklets_of_more_frames_than_there_are(tmp_path: Path) -> None:
    save_frames(tmp_path / "sav_1", 5)
    save_json(tmp_path / "sav_1_manual.json", masklets(3, 9))
    with pytest.raises(DataError, match=r"of a video of 9 frames, but .*sav_1 holds 5"):
        read_video_dataset(tmp_path)


@pytest.mark.parametrize("masklet", [{"0": []}, "ab", [{"size": 1}], [["a"], 3]])
def test_masklets_of_another_form(tmp_path: Path, masklet: object) -> None:
    save_frames(tmp_path / "sav_1", 1)
    save_json(tmp_path / "sav_1_manual.json", {**masklets(1, 1), "masklet": masklet})
    with pytest.raises(DataError, match=r"is damaged|no masklet file"):
        read_video_dataset(tmp_path)[0].masks(0)


def test_masks_are_read_as_asked_for(davis: Path) -> None:
    for video in read_video_dataset(davis, masks=MaskOptions("foreground")):
        assert [list(video.masks(frame)) for frame in video.annotated] == [[1], [1]]
    assert isinstance(open_dataset(davis, objects="parts"), VideoFrames)
