"""Tracking with prompts that are known beforehand, by a small model."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tests.models_for_tests import loaded, small_sam2

from segany import Prompt, VideoPredictor
from segany.core.instance import Category
from segany.data.formats.track_writer import TRACK_FORMATS, TrackWriter
from segany.data.frame_prompts import FramePrompt
from segany.imaging.frames import open_frames
from segany.predict.track_prompts import track_prompts

SIZE_HW = (72, 128)
PROMPTS = [
    FramePrompt(1, 1, Prompt(points_xy=[[40, 30]])),
    FramePrompt(3, 1, Prompt(points_xy=[[90, 60]])),
    FramePrompt(3, 2, Prompt(box_xyxy=[60, 20, 110, 60])),
]


def noise_frames(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *SIZE_HW, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def predictor() -> VideoPredictor:
    """Its weights are random, and would find that no object is ever visible."""
    model = small_sam2()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 1
    return VideoPredictor(loaded(model))


def test_frames_that_come_once_are_prompted_as_they_come(predictor: VideoPredictor) -> None:
    frames = noise_frames(20)
    with predictor.open(iter(frames)) as session:
        results = list(track_prompts(session, PROMPTS, max_frames=5))
        kept = session.result(3)
    assert [result.frame for result in results] == [1, 2, 3, 4, 5]
    assert [result.object_ids for result in results] == [(1,), (1,), (1, 2), (1, 2), (1, 2)]
    np.testing.assert_array_equal(kept.masks, results[2].masks)
    np.testing.assert_array_equal(kept.scores, results[2].scores)
    # The same by hand, going back to the prompted frame instead.
    with predictor.open(frames) as session:
        session.prompt(*PROMPTS[0][:3])
        before = list(session.propagate(end=3))
        answers = [session.prompt(*item[:3]) for item in PROMPTS[1:]]
        after = list(session.propagate(4, end=5))
    for one, other in zip(results[:2] + results[3:], before[:2] + after, strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_array_equal(results[2].masks, np.concatenate([answer.masks for answer in answers]))
    assert (results[2].mask_of(1) != before[2].mask_of(1)).any()


def test_categories_of_prompts_are_those_of_the_results(predictor: VideoPredictor) -> None:
    prompts = [PROMPTS[0], PROMPTS[2]._replace(category=Category(2, "cat"))]
    with predictor.open(noise_frames(5)) as session:
        results = list(track_prompts(session, prompts))
    assert [item.category for item in results[-1].instances] == [None, Category(2, "cat")]


def test_each_mask_is_encoded_once_from_session_to_files(
    predictor: VideoPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    encode = coco_mask.encode

    def counted(mask: np.ndarray) -> object:
        calls["empty" if not mask.any() else "mask"] += 1
        return encode(mask)

    monkeypatch.setattr(coco_mask, "encode", counted)
    with (
        open_frames(noise_frames(6)) as source,
        predictor.open(source) as session,
        TrackWriter(source, tmp_path, "clip", tuple(TRACK_FORMATS)) as writer,
    ):
        for result in track_prompts(session, PROMPTS):
            writer.add(result)
        session.result(3)
    prompts, tracked, filler = len(PROMPTS), 5 * 2, 1  # sav has an empty mask for frames without results
    assert calls.total() == prompts + tracked + filler
    assert calls["mask"] > tracked / 2
