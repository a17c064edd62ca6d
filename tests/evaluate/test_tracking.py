from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.models_for_tests import loaded, small_sam2

from segany import DataError, FrameResult, VideoPredictor
from segany.core.arrays import BoolArray
from segany.core.progress import ProgressEvent
from segany.core.rle import Rle, encode_masks
from segany.evaluate.boundary_f import boundary_f
from segany.evaluate.results import ModelFacts
from segany.evaluate.tracking import VideoProtocol, Videos, VideoSubject, track_objects
from segany.imaging.frames import FrameSource, open_frames
from segany.jobs.evaluation import EvaluationTask, LoadedModel, evaluate

SIZE_HW = (48, 64)
FRAMES = 6


def square(left: int, side: int = 12) -> BoolArray:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[10 : 10 + side, left : left + side] = True
    return mask


@dataclass
class Video:
    """Object 1 moves by two pixels a frame; 2 appears in frame 2 and stands still; 3 is in the last frame only."""

    name: str = "clip"
    object_ids: tuple[int, ...] = (1, 2, 3)
    annotated: tuple[int, ...] = tuple(range(FRAMES))
    damaged: bool = False
    may_overlap: bool = True

    def annotated_frames(self, object_id: int) -> tuple[int, ...]:
        return self.annotated

    def open(self) -> FrameSource:
        return open_frames([np.full((*SIZE_HW, 3), 20 * frame, dtype=np.uint8) for frame in range(FRAMES)])

    def masks(self, frame: int) -> dict[int, Rle]:
        if self.damaged:
            raise DataError("the mask is damaged.")
        masks = {1: square(4 + 2 * frame), 2: square(40) if frame >= 2 else np.zeros(SIZE_HW, dtype=bool)}
        if frame == FRAMES - 1:
            masks[3] = square(4)
        return {key: encode_masks(mask)[0] for key, mask in masks.items() if key in self.object_ids}


class FrozenSession:
    """Whatever was prompted stays where it is, for good."""

    def __init__(self, prompts: list[tuple[int, int]]) -> None:
        self.masks: dict[int, BoolArray] = {}
        self.prompts = prompts

    def __enter__(self) -> FrozenSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, frame: int, object_id: int, prompt: BoolArray) -> FrameResult:
        self.prompts.append((frame, object_id))
        self.masks[object_id] = prompt
        return FrameResult.from_masks(frame, (object_id,), prompt[None], [1.0])

    def propagate(self, start: int, *, logits: bool = False, progress: Any = None):
        for frame in range(start, FRAMES):
            if progress is not None:
                progress(ProgressEvent("tracking", frame + 1, FRAMES, "frames"))
            yield FrameResult.from_masks(
                frame, tuple(self.masks), np.stack(list(self.masks.values())), np.ones(len(self.masks))
            )


class FrozenPredictor:
    def __init__(self) -> None:
        self.prompts: list[tuple[int, int]] = []

    def open(self, frames: object) -> FrozenSession:
        return FrozenSession(self.prompts)


def test_objects_are_prompted_once_where_they_first_appear():
    predictor = FrozenPredictor()
    scores = track_objects(predictor, Video())
    assert predictor.prompts == [(0, 1), (2, 2), (5, 3)]
    # A square of 12 that stands still while the true one moves by 2 a frame shares 10, 8, 6, 4 of 12 columns.
    assert scores[1].j == pytest.approx([10 / 14, 8 / 16, 6 / 18, 4 / 20], abs=1e-15)
    assert scores[1].f == pytest.approx([boundary_f(square(4), square(4 + 2 * frame)) for frame in range(1, 5)])
    assert scores[2].j == (1, 1, 1)  # frames 2 to 4
    assert scores[3].j == ()


def test_annotations_of_some_frames_only():
    scores = track_objects(FrozenPredictor(), Video(annotated=(0, 2, 4)))
    assert scores[1].j == pytest.approx([8 / 16], abs=1e-15)  # of frames 0, 2, 4 the one in the middle


def test_the_numbers_of_a_dataset_are_means_over_objects(tmp_path):
    videos = Videos([Video("clip"), Video("torn", damaged=True)])
    predictor = FrozenPredictor()
    protocol = VideoProtocol()

    class FrozenTask(EvaluationTask):
        def open(self, progress: object) -> Callable[[Video], VideoSubject]:
            return lambda video: VideoSubject(predictor, video)

    results = evaluate(FrozenTask(videos, LoadedModel(None), ModelFacts("m", "", ""), (protocol,), "v"), tmp_path)
    numbers = results.numbers(protocol)
    j = (np.mean([10 / 14, 8 / 16, 6 / 18, 4 / 20]) + 1) / 2
    f = (np.mean([boundary_f(square(4), square(4 + 2 * frame)) for frame in range(1, 5)]) + 1) / 2
    assert numbers["objects"] == 2  # the third has no frame that counts
    assert numbers["frames"] == 7
    assert [numbers["j"], numbers["f"], numbers["jf"]] == pytest.approx([j, f, (j + f) / 2], abs=1e-12)
    assert [one.reason for one in results.skipped] == ["the mask is damaged."]


def test_a_real_model_tracks_each_object_as_if_alone():
    predictor = VideoPredictor(loaded(small_sam2()))
    together = track_objects(predictor, Video())
    for object_id in (1, 2):
        alone = track_objects(predictor, Video(object_ids=(object_id,)))
        assert alone[object_id] == together[object_id]
    assert len(together[1].j) == 4


def test_masks_of_another_size_than_the_frames_are_an_error():
    video = Video()
    video.masks = lambda frame: {1: encode_masks(np.ones((10, 10), dtype=bool))[0]}
    with pytest.raises(DataError, match=r"object 1 in frame 0 of clip is 10 wide"):
        track_objects(FrozenPredictor(), video)
