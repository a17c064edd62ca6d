"""Every entry point works under CPU autocast, in which a matmul of float32 returns bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded, small_sam, small_sam2

import segany

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
POINT = segany.Prompt(points_xy=[[60, 40]])


@pytest.fixture(autouse=True)
def bfloat16() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


def plainly(predictor: segany.ImagePredictor) -> tuple[segany.Embedding, segany.MaskPrediction]:
    """The embedding and prediction without autocast."""
    with torch.autocast("cpu", enabled=False):
        embedding = predictor.embed(IMAGE)
        return embedding, predictor.predict(embedding, POINT, with_logits=True)


@pytest.fixture(params=["sam", "sam2"])
def predictor(request: pytest.FixtureRequest) -> segany.ImagePredictor:
    return segany.ImagePredictor(loaded(small_sam() if request.param == "sam" else small_sam2()))


def test_embedding(predictor: segany.ImagePredictor) -> None:
    expected, _ = plainly(predictor)
    for ours, theirs in zip(predictor.embed(IMAGE).features, expected.features, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def test_prediction(predictor: segany.ImagePredictor) -> None:
    embedding, expected = plainly(predictor)
    prediction = predictor.predict(embedding, POINT, with_logits=True)
    assert prediction.logits is not None
    assert prediction.logits.dtype == np.float32
    scale = np.abs(expected.low_res_logits).max()
    np.testing.assert_allclose(prediction.low_res_logits, expected.low_res_logits, atol=0.05 * scale)


def test_automatic_masks(predictor: segany.ImagePredictor) -> None:
    config = segany.AutomaticConfig(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    generator = segany.AutomaticMaskGenerator(predictor.model, config)
    with torch.autocast("cpu", enabled=False):
        expected = generator.generate(IMAGE)
    assert len(expected)
    assert len(generator.generate(IMAGE)) == pytest.approx(len(expected), abs=2)


def test_video() -> None:
    frames = [IMAGE, IMAGE[:, ::-1].copy(), IMAGE]
    with segany.VideoPredictor(loaded(small_sam2())).open(frames) as session:
        session.prompt(frame=0, object_id=1, prompt=POINT)
        session.prompt(frame=1, object_id=2, prompt=np.pad(np.ones((30, 30), np.bool_), ((20, 46), (20, 78))))
        results = list(session.propagate(logits=True))
    assert [result.frame for result in results] == [0, 1, 2]
    assert all(np.isfinite(result.mask_logits).all() for result in results if result.mask_logits is not None)
