"""J and F of SA-V's and DAVIS's own evaluators, on the same files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate import video_cases as cases

from segany import DataError, FrameResult
from segany.core.arrays import BoolArray
from segany.data.video_folder import VideoFrames, default_split, read_video_dataset, video_splits
from segany.evaluate.tracking import track_objects, without_overlaps

GOLDEN = json.loads((Path(__file__).parent / "golden_video.json").read_text())


class Replay:
    """A predictor and its session, which answers with the logits of the cases, and with a mask where one is given."""

    def __init__(self, number_of: dict[int, int]) -> None:
        self.number_of = number_of
        self.given: dict[tuple[int, int], BoolArray] = {}

    def open(self, frames: object) -> Replay:
        return self

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, frame: int, object_id: int, prompt: BoolArray) -> FrameResult:
        self.given[frame, object_id] = prompt
        return self.result(frame, [object_id], logits=False)

    def propagate(self, start: int, *, logits: bool = False, progress: Any = None) -> Iterator[FrameResult]:
        for frame in range(start, cases.FRAMES):
            yield self.result(frame, sorted({object_id for _, object_id in self.given}), logits=logits)

    def result(self, frame: int, ids: list[int], *, logits: bool) -> FrameResult:
        found = [cases.logits(self.number_of[object_id], frame) for object_id in ids]
        found = [
            np.where(self.given[frame, object_id], 10.0, -10.0).astype(np.float32)
            if (frame, object_id) in self.given
            else values
            for object_id, values in zip(ids, found, strict=True)
        ]
        stack = np.stack(found)
        scores = np.ones(len(ids), np.float32)
        return FrameResult.from_masks(frame, ids, stack > 0, scores, mask_logits=stack if logits else None)


@pytest.mark.parametrize("layout", ["sav", "davis"])
def test_j_and_f_are_those_of_the_official_evaluator(tmp_path: Path, layout: str) -> None:
    if layout == "sav":
        (video,) = read_video_dataset(cases.write_sav(tmp_path))
        predictor = Replay({0: 0, 1: 1, 2: 2, 3: 3})
    else:
        (video,) = read_video_dataset(cases.write_davis(tmp_path), "val")
        predictor = Replay({1: 1, 2: 2})
    scores = track_objects(predictor, video)  # type: ignore[arg-type]
    golden = GOLDEN[layout]
    assert {int(name) for name in golden["j"]} == set(scores)
    for name, j in golden["j"].items():
        assert scores[int(name)].mean_j == pytest.approx(j, abs=1e-12)
        assert scores[int(name)].mean_f == pytest.approx(golden["f"][name], abs=1e-12)


def test_the_highest_logit_takes_a_pixel() -> None:
    logits = np.array([[[3.0, 2.0, -1.0, 1.0]], [[1.0, 4.0, -2.0, 1.0]]], dtype=np.float32)
    owned = without_overlaps(logits > 0, logits)
    assert owned.tolist() == [[[True, False, False, True]], [[False, True, False, False]]]


def test_void_alone_is_no_object(tmp_path: Path) -> None:
    """Frame 8 holds nothing else, and the other frames of the video tell what 255 is."""
    (video,) = read_video_dataset(cases.write_davis(tmp_path), "val")
    assert video.object_ids == (1, 2)
    assert video.masks(8) == {}


def test_255_alone_in_a_whole_video_is_the_object(tmp_path: Path) -> None:
    """As in DAVIS 2016, whose masks are 0 and 255."""
    cases.write_frames(tmp_path / "JPEGImages" / "clip")
    for frame in range(3):
        labels = np.where(cases.true_mask(0, frame), 255, 0).astype(np.uint8)
        cases.write_label_map(tmp_path / "Annotations" / "clip" / f"{frame:05d}.png", labels)
    (video,) = read_video_dataset(tmp_path)
    assert video.object_ids == (255,)


def test_splits_of_davis(tmp_path: Path) -> None:
    root = cases.write_davis(tmp_path)
    assert video_splits(root) == {"train": ("training",), "val": ("clip",)}
    assert default_split(root) == "val"
    assert [video.name for video in read_video_dataset(root, "val")] == ["clip"]
    assert [video.name for video in read_video_dataset(root, "train")] == ["training"]
    assert [video.name for video in read_video_dataset(root)] == ["clip", "training"]
    assert {name.split("/")[0] for name in VideoFrames(root, "train").names} == {"training"}
    with pytest.raises(DataError, match=r"no split 'test'\. It has train, val"):
        read_video_dataset(root, "test")
    (root / "ImageSets" / "2017" / "val.txt").write_text("clip\nmissing\n")
    with pytest.raises(DataError, match=r"1 videos of the split 'val' are not in .*, such as missing"):
        read_video_dataset(root, "val")


def test_splits_of_sav(tmp_path: Path) -> None:
    root = cases.write_sav(tmp_path)
    assert (video_splits(root), default_split(root)) == ({}, None)
    (root / "sav_val.txt").write_text("clip\n")
    assert (video_splits(root), default_split(root)) == ({"val": ("clip",)}, "val")
    assert [video.name for video in read_video_dataset(root, "val")] == ["clip"]


def test_splits_of_youtube_vos(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in ("a", "b"):
            cases.write_frames(tmp_path / split / "JPEGImages" / name)
            cases.write_label_map(tmp_path / split / "Annotations" / name / "00000.png", cases.davis_labels(0))
    (tmp_path / "valid" / "meta.json").write_text(json.dumps({"videos": {"b": {"objects": {}}}}))
    assert default_split(tmp_path) == "valid"
    assert [video.name for video in read_video_dataset(tmp_path, "train")] == ["a", "b"]
    assert [video.name for video in read_video_dataset(tmp_path, "valid")] == ["b"]
    with pytest.raises(DataError, match="holds the splits train, valid"):
        read_video_dataset(tmp_path)
    (tmp_path / "valid" / "meta.json").write_text("[]")
    with pytest.raises(DataError, match=r"no meta\.json of YouTube-VOS"):
        read_video_dataset(tmp_path, "valid")
