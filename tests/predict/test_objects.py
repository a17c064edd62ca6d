"""The object predictor: from the boxes of a detector to masks with a confidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded, small_sam, small_sam2
from torch import Tensor

import segany
from segany.core.embedding import Embedding
from segany.core.errors import ConfigError, EmbeddingError
from segany.evaluate.calibration import calibrate
from segany.models.calibration import Calibration
from segany.models.object_detector import DetectorLevel, ObjectDetector, ObjectDetectorConfig
from segany.predict.objects import COLUMNS, ObjectConfig, ObjectPredictor
from segany.runtime.torch_model import TorchModel

SIZE_HW = (100, 150)
"""Resized to 171 x 256 by a model of 256 px: 11 x 16 positions."""

SCALE_XY = (256 / 150, 171 / 100)


class FixedDetector(ObjectDetector):
    """Has an object at each position (row, column) of `found`, with a score and a box in pixels of the image."""

    found: dict[tuple[int, int], tuple[float, tuple[float, ...]]]
    seen: list[Tensor]

    def forward(self, embedding: Tensor) -> list[DetectorLevel]:
        self.seen.append(embedding)
        heatmap = torch.full((1, *embedding.shape[2:]), -10.0)
        boxes = torch.zeros(*heatmap.shape, 4)
        for (row, column), (score, box) in self.found.items():
            heatmap[0, row, column] = torch.logit(torch.tensor(score))
            boxes[0, row, column] = torch.tensor(box) * torch.tensor(SCALE_XY * 2)
        return [DetectorLevel(heatmap, boxes)]


@pytest.fixture(scope="module")
def model() -> TorchModel:
    return loaded(small_sam())


@pytest.fixture(scope="module")
def embedding(model: TorchModel) -> Embedding:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    return segany.ImagePredictor(model).embed(image)


def detector(model: TorchModel, **found: Any) -> FixedDetector:
    made = FixedDetector(ObjectDetectorConfig(width=8, depth=1), model=model.name, encoder_id=model.encoder_id).eval()
    made.found = dict(found.values())
    made.seen = []
    return made


BOXES = {
    "first": ((2, 2), (0.9, (5.0, 10, 60, 70))),
    "twin": ((2, 6), (0.8, (6.0, 10, 61, 70))),  # suppressed by the first
    "outer": ((6, 9), (0.7, (-20.0, -5, 200, 140))),  # clipped
    "outside": ((8, 13), (0.6, (160.0, 20, 170, 40))),  # has no part in the image
    "weak": ((9, 2), (0.05, (50.0, 20, 90, 60))),
}


def test_boxes_are_in_pixels_of_the_image(model: TorchModel, embedding: Embedding) -> None:
    made = detector(model, **BOXES)
    boxes, scores = ObjectPredictor(model, made).find_boxes(embedding)
    np.testing.assert_allclose(boxes, [[5, 10, 60, 70], [0, 0, 150, 100]], atol=1e-4)
    assert scores.tolist() == pytest.approx([0.9, 0.7])
    assert made.seen[0].shape == (1, 256, 11, 16)  # without the padding
    boxes, scores = ObjectPredictor(model, made, ObjectConfig(min_detection_score=0.01)).find_boxes(embedding)
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.05], abs=1e-6)
    boxes, _ = ObjectPredictor(model, made, ObjectConfig(box_nms_thresh=1.0, max_objects=2)).find_boxes(embedding)
    np.testing.assert_allclose(boxes[:, 0], [5, 6], atol=1e-4)


def test_each_box_prompts_a_mask(model: TorchModel, embedding: Embedding) -> None:
    predictor = ObjectPredictor(model, detector(model, **BOXES), ObjectConfig(box_nms_thresh=1.0))
    found = predictor.find(embedding)
    boxes, _ = predictor.find_boxes(embedding)
    prompted = segany.ImagePredictor(model).predict(embedding, [segany.Prompt(box_xyxy=box) for box in boxes])
    order = np.argsort(-found.detection_score)
    expected = [index for index in range(len(boxes)) if prompted.masks[index, 0].any()]
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.masks()[order], prompted.masks[expected, 0])
    np.testing.assert_allclose(found.predicted_iou[order], prompted.scores[expected, 0], atol=1e-5)
    assert set(found.columns) == set(COLUMNS)
    assert set(found.sources) == {"automatic"}
    product = found.detection_score * found.predicted_iou.clip(0, 1) * found.stability_score
    np.testing.assert_allclose(found.scores, product, atol=1e-6)
    assert (np.diff(found.scores) <= 0).all()


def test_an_image_is_as_good_as_its_embedding(model: TorchModel) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    predictor = ObjectPredictor(model, detector(model, **BOXES))
    assert predictor.find(image) == predictor.find(predictor.predictor.embed(image))


def test_no_object_has_the_same_columns(model: TorchModel, embedding: Embedding) -> None:
    found = ObjectPredictor(model, detector(model)).find(embedding)
    assert (len(found), found.size_hw, set(found.columns)) == (0, SIZE_HW, set(COLUMNS))


def test_padding_has_no_effect(model: TorchModel, embedding: Embedding) -> None:
    """With a real detector, whose boxes depend on everything it sees."""
    torch.manual_seed(0)
    config = ObjectDetectorConfig(in_channels=256, width=8, depth=2)
    made = ObjectDetector(config, model=model.name, encoder_id=model.encoder_id).eval()
    other = np.array(embedding.features[0])
    other[:, 11:] = 100.0
    changed = replace(embedding, features=(other,))
    predictor = ObjectPredictor(model, made, ObjectConfig(min_detection_score=0.0))
    (boxes, scores), (others, other_scores) = predictor.find_boxes(embedding), predictor.find_boxes(changed)
    assert len(boxes) > 3
    np.testing.assert_array_equal(boxes, others)
    np.testing.assert_array_equal(scores, other_scores)


def test_sam2_embeddings_do_too() -> None:
    model = loaded(small_sam2())
    image = np.random.default_rng(1).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    config = ObjectDetectorConfig.for_encoder(model.module.config.encoder)
    made = ObjectDetector(config, model=model.name, encoder_id=model.encoder_id).eval()
    boxes, _ = ObjectPredictor(model, made, ObjectConfig(min_detection_score=0.0)).find_boxes(
        segany.ImagePredictor(model).embed(image)
    )
    assert len(boxes) > 0
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= [150, 100]).all()


def test_other_embeddings_and_models_are_refused(model: TorchModel, embedding: Embedding) -> None:
    made = detector(model, **BOXES)
    predictor = ObjectPredictor(model, made)
    for other in (replace(embedding, encoder_id="other"), replace(embedding, model="mobile_sam")):
        with pytest.raises(EmbeddingError, match="trained on embeddings of 'small'"):
            predictor.find(other)
    made.encoder_id = "another"
    with pytest.raises(EmbeddingError, match="trained on embeddings of 'small'"):
        ObjectPredictor(model, made)


CALIBRATION = Calibration((1.0, 0.0, 0.0), 0.0, 0.75, 0.95, 0.9, "", 40, 50, 0.96, 0.7)


def test_scores_are_calibrated(model: TorchModel, embedding: Embedding) -> None:
    made = detector(model, **BOXES)
    made.calibration = replace(CALIBRATION, weights_id=model.weights_id)
    found = ObjectPredictor(model, made).find(embedding)
    np.testing.assert_allclose(found.scores, found.detection_score, atol=1e-5)  # the sigmoid of its logit
    raw = ObjectPredictor(model, made, calibrated=False).find(embedding)
    assert not np.allclose(raw.scores, raw.detection_score, atol=1e-3)


def test_calibration_of_other_masks_is_refused(model: TorchModel) -> None:
    made = detector(model, **BOXES)
    made.calibration = replace(CALIBRATION, weights_id="other")
    with pytest.raises(ConfigError, match=r"masks of the weights other.*Calibrate it for this model"):
        ObjectPredictor(model, made)
    assert ObjectPredictor(model, made, calibrated=False).calibration is None


def test_calibrating_a_predictor(model: TorchModel, embedding: Embedding) -> None:
    """The found masks are the annotated ones on half of the images, and on the others nothing is right."""
    made = detector(model, **BOXES)
    predictor = ObjectPredictor(model, made, calibrated=False)
    right = predictor.find(embedding)
    wrong = segany.Instances.from_masks(np.ones((len(right), *SIZE_HW), dtype=np.bool_))
    events: list[int] = []
    calibration = calibrate(
        predictor,
        [(embedding, right), (embedding, wrong)] * 20,
        precision=0.4,
        progress=lambda event: events.append(event.done),
    )
    assert calibration.weights_id == model.weights_id
    assert (calibration.objects, calibration.masks) == (40 * len(right), 40 * len(right))
    assert calibration.measured_precision == pytest.approx(0.5)
    assert calibration.measured_share == pytest.approx(0.5)
    assert events == list(range(1, 41))
    made.calibration = calibration
    found = ObjectPredictor(model, made).find(embedding)
    assert found.scores.tolist() == pytest.approx([0.5] * len(right), abs=0.05)
    with pytest.raises(ConfigError, match="calibrated=False"):
        calibrate(ObjectPredictor(model, made), [(embedding, right)])


@pytest.mark.parametrize(
    "wrong",
    [{"max_objects": 0}, {"min_detection_score": -0.1}, {"box_nms_thresh": 1.5}, {"stability_score_offset": -1.0}],
)
def test_config_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ObjectConfig(**wrong)  # type: ignore[arg-type]
