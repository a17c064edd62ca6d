"""`segany track` with a real session of a small model."""

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded, small_sam2

from segany import Prompt, VideoPredictor
from segany.cli import track as track_module
from segany.cli.track_prompts import FramePrompt
from segany.imaging.frames import open_frames

SIZE_HW = (72, 128)
PROMPTS = [
    FramePrompt(1, 1, Prompt(points_xy=[[40, 30]])),
    FramePrompt(3, 1, Prompt(points_xy=[[90, 60]])),
    FramePrompt(3, 2, Prompt(box_xyxy=[60, 20, 110, 60])),
]


@pytest.fixture(scope="module")
def predictor() -> VideoPredictor:
    """Its weights are random, and would find that no object is ever visible."""
    model = small_sam2()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 1
    return VideoPredictor(loaded(model))


def test_frames_that_come_once_are_prompted_as_they_come(predictor: VideoPredictor) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (20, *SIZE_HW, 3), dtype=np.uint8))
    with open_frames(iter(frames)) as source, predictor.open(source) as session:
        results = list(track_module._results(session, source, PROMPTS, None, "forward", 5))
        kept = session.result(3)
    assert [result.frame for result in results] == [1, 2, 3, 4, 5]
    assert [result.object_ids for result in results] == [(1,), (1,), (1, 2), (1, 2), (1, 2)]
    np.testing.assert_array_equal(kept.masks, results[2].masks)
    np.testing.assert_array_equal(kept.scores, results[2].scores)
    # The same by hand, going back to the prompted frame instead.
    with predictor.open(frames) as session:
        session.prompt(*PROMPTS[0])
        before = list(session.propagate(end=3))
        answers = [session.prompt(*item) for item in PROMPTS[1:]]
        after = list(session.propagate(4, end=5))
    for one, other in zip(results[:2] + results[3:], before[:2] + after, strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_array_equal(results[2].masks, np.concatenate([answer.masks for answer in answers]))
    assert (results[2].mask_of(1) != before[2].mask_of(1)).any()
