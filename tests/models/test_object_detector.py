"""The object detector: its outputs, what it may be used with, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models_for_tests import small_sam

import segany
from segany.core.errors import CheckpointError, ConfigError, EmbeddingError
from segany.models.calibration import Calibration
from segany.models.model_file import read_metadata, save_model, write_tensors
from segany.models.object_detector import ObjectDetector, ObjectDetectorConfig, unpadded
from segany.models.object_detector_file import DETECTOR_KEY, save_object_detector
from segany.models.registry import MODELS

CONFIG = ObjectDetectorConfig(in_channels=32, width=16, depth=1)
CALIBRATION = Calibration((0.5, 0.0, 1.5), -0.25, 0.75, 0.95, 0.9, "abc", 40, 50, 0.96, 0.7)


def detector(config: ObjectDetectorConfig = CONFIG) -> ObjectDetector:
    torch.manual_seed(0)
    return ObjectDetector(config, model="small", encoder_id="0123").eval()


def test_outputs_of_the_levels() -> None:
    levels = detector()(torch.randn(2, 32, 13, 16))
    assert [tuple(level.heatmap.shape) for level in levels] == [(2, 13, 16), (2, 7, 8), (2, 4, 4), (2, 2, 2)]
    for level, stride in zip(levels, CONFIG.strides, strict=True):
        boxes = level.boxes_xyxy
        assert boxes.shape == (*level.heatmap.shape, 4)
        centers = (torch.arange(boxes.shape[2]) + 0.5) * stride  # of the positions, which lie in their boxes
        assert (boxes[..., 0] < centers).all()
        assert (centers < boxes[..., 2]).all()
    assert torch.cat([level.heatmap.flatten() for level in levels]).sigmoid().mean() < 0.05  # as before any training


@pytest.mark.parametrize("name", list(MODELS))
def test_there_is_a_small_one_for_every_encoder(name: str) -> None:
    config = ObjectDetectorConfig.for_encoder(MODELS[name].config.encoder)
    with torch.device("meta"):
        made = ObjectDetector(config, model=name, encoder_id="")
    assert config.in_channels == MODELS[name].config.encoder.out_channels
    assert sum(parameter.numel() for parameter in made.parameters()) < 500_000


def test_boxes_are_peaks_in_the_order_of_their_scores() -> None:
    made, embedding = detector(), torch.randn(32, 16, 16)
    boxes, scores = made.detect(embedding, max_boxes=1000, min_score=0.0)
    assert (scores[:-1] >= scores[1:]).all()
    assert 4 < len(boxes) < (16**2 + 8**2 + 4**2 + 2**2) / 2  # of neighbors only one can be a peak
    fewer, best = made.detect(embedding, max_boxes=3, min_score=0.0)
    assert torch.equal(fewer, boxes[:3])
    limited, _ = made.detect(embedding, max_boxes=1000, min_score=float(best[2]))
    assert torch.equal(limited, boxes[:3])


def test_padding_is_cropped_to_positions_with_pixels() -> None:
    embedding = torch.arange(64 * 64).reshape(1, 64, 64)
    assert unpadded(embedding, (1024, 684)).shape == (1, 64, 43)  # 42.75 positions
    assert torch.equal(unpadded(embedding, (16, 1)), embedding[:, :1, :1])


def test_embeddings_of_other_weights_are_refused() -> None:
    detector().check_fits("small", "0123")
    for other in (("small", "4567"), ("mobile_sam", "0123")):
        with pytest.raises(EmbeddingError, match=r"trained on embeddings of 'small'.*0123.*--model MODEL"):
            detector().check_fits(*other)


@pytest.mark.parametrize("wrong", [{"width": 12}, {"width": 0}, {"depth": 0}, {"levels": 9}, {"in_channels": 0}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **wrong)


@pytest.mark.parametrize("calibration", [None, CALIBRATION, replace(CALIBRATION, threshold=None)])
def test_file_keeps_everything(tmp_path: Path, calibration: Calibration | None) -> None:
    made = detector()
    made.calibration = calibration
    path = save_object_detector(made, tmp_path / "a.safetensors", {"segany.step": "7"})
    loaded = segany.load_object_detector(str(path), device="cpu")
    assert (loaded.config, loaded.model, loaded.encoder_id) == (CONFIG, "small", "0123")
    assert loaded.calibration == calibration
    assert read_metadata(path)["segany.step"] == "7"
    embedding = torch.randn(1, 32, 8, 8)
    for ours, theirs in zip(loaded(embedding), made(embedding), strict=True):
        assert torch.equal(ours.heatmap, theirs.heatmap)
        assert torch.equal(ours.boxes_xyxy, theirs.boxes_xyxy)


def test_files_of_models_and_of_detectors_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Load it with segany\.load_object_detector"):
        segany.load(save_object_detector(detector(), tmp_path / "detector.safetensors"))
    with pytest.raises(CheckpointError, match=r"holds no object detector\. Give a file"):
        segany.load_object_detector(save_model(small_sam(), tmp_path / "model.safetensors"))
    for missing in ("none.safetensors", "none.pt", "."):
        with pytest.raises(CheckpointError, match=r"no file|is a folder|directory"):
            segany.load_object_detector(tmp_path / missing)


def put(*keys: str, value: Any) -> Any:
    def change(facts: dict[str, Any]) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("model", value=7),
        put("encoder_id", value="\x1b[31m"),
        put("config", value=None),
        put("config", value={"kind": "VitConfig"}),
        put("config", "kind", value="Calibration"),
        put("config", "width", value=1 << 40),
        put("config", "width", value=24),  # not what the tensors have
        put("config", "extra", value=1),
        put("calibration", value=7),
        put("calibration", "kind", value="ObjectDetectorConfig"),
        put("calibration", "weights", value=[1.0, -1.0, 1.0]),
        put("calibration", "weights", value=[1.0, 1.0]),
        put("calibration", "threshold", value=2.0),
        put("calibration", "bias", value=float("nan")),
        lambda facts: facts.pop("calibration"),
        lambda facts: facts.clear(),
    ],
)
def test_description_that_is_no_detector(tmp_path: Path, change: Any) -> None:
    made = detector()
    made.calibration = CALIBRATION
    path = save_object_detector(made, tmp_path / "a.safetensors")
    facts = json.loads(read_metadata(path)[DETECTOR_KEY])
    change(facts)
    write_tensors(path, made.state_dict(), {DETECTOR_KEY: json.dumps(facts)})
    with pytest.raises(CheckpointError, match=r"cannot read.*train the detector again") as error:
        segany.load_object_detector(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "{"])
def test_description_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", detector().state_dict(), {DETECTOR_KEY: text})
    with pytest.raises(CheckpointError, match="cannot read"):
        segany.load_object_detector(path)


def test_boxes_are_exact_in_half_precision() -> None:
    made, embedding = detector(), torch.randn(1, 32, 64, 64)
    half = detector().to(torch.bfloat16)(embedding.to(torch.bfloat16))
    for ours, theirs in zip(half, made(embedding), strict=True):
        assert ours.boxes_xyxy.dtype == ours.heatmap.dtype == torch.float32
        middle = [(level.boxes_xyxy[..., :2] + level.boxes_xyxy[..., 2:]) / 2 for level in (ours, theirs)]
        assert (middle[0] - middle[1]).abs().max() < 2
