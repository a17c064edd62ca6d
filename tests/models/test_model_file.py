"""Model files describe any model: what they describe is checked before it is built."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, SMALL_TINY_VIT, small_sam

import segany
from segany.core.errors import CheckpointError
from segany.models.configs import config_from_json, config_to_json
from segany.models.model_file import MODEL_KEY, save_model, saved_spec, saved_stability_score_thresh, write_tensors
from segany.models.registry import MODELS


def described(path: Path, change: Any) -> Path:
    """A file whose description of its model `change` has edited."""
    facts = {"name": "small", "config": json.loads(json.dumps(config_to_json(SMALL_TINY_VIT)))}
    text = change(facts)
    text = text if isinstance(text, str) else json.dumps(facts)
    return write_tensors(path, {"x": torch.zeros(1)}, {MODEL_KEY: text})


def test_configs_survive_json() -> None:
    for config in (*(spec.config for spec in MODELS.values()), SMALL_TINY_VIT, *SMALL_SAM2_CONFIGS.values()):
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_file_describes_its_model(tmp_path: Path) -> None:
    config = replace(SMALL_TINY_VIT, mean_rgb=(1.0, 2, 3))
    spec = saved_spec(save_model(small_sam(config), tmp_path / "a.safetensors"))
    assert spec is not None
    assert (spec.name, spec.config) == ("small", config)


def test_file_keeps_the_threshold_of_automatic_masks(tmp_path: Path) -> None:
    model = small_sam()
    assert saved_stability_score_thresh(save_model(model, tmp_path / "a.safetensors")) is None
    model.stability_score_thresh = 0.8
    path = save_model(model, tmp_path / "b.safetensors")
    assert (saved_stability_score_thresh(path), segany.load(path).stability_score_thresh) == (0.8, 0.8)


@pytest.mark.parametrize("thresh", ["0.9", -0.1, 1.5, float("nan"), True, [0.9], 10**400])
def test_threshold_of_automatic_masks_is_a_share(tmp_path: Path, thresh: Any) -> None:
    path = described(tmp_path / "a.safetensors", put("stability_score_thresh", value=thresh))
    with pytest.raises(CheckpointError, match="stability_score_thresh is no number"):
        saved_stability_score_thresh(path)


def put(*keys: Any, value: Any) -> Any:
    def change(facts: Any) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("name", value=7),
        put("name", value=""),
        put("name", value="a" * 1000),
        put("name", value="\x1b[31m"),
        put("config", value=[]),
        put("config", value={}),
        put("config", value={"kind": ["SamConfig"]}),
        put("config", value={"kind": "VitConfig"}),
        put("config", "kind", value="DecoderConfig"),
        put("config", "extra", value=1),
        put("config", "encoder", value=None),
        put("config", "encoder", value={"kind": "DecoderConfig"}),
        put("config", "encoder", "widths", value=[1, 2]),
        put("config", "encoder", "widths", value="4444"),
        put("config", "encoder", "depths", value=[2, 2, 10**9, 2]),
        put("config", "encoder", "depths", value=[2, 2, 0, 2]),
        put("config", "encoder", "heads", value=[0, 0, 0, 0]),
        put("config", "encoder", "heads", value=[2, 4, 5.0, 10]),
        put("config", "encoder", "heads", value=[2, 4, True, 10]),
        put("config", "encoder", "window_sizes", value=[7, 7, -14, 7]),
        put("config", "encoder", "input_size", value=1 << 60),
        put("config", "encoder", "input_size", value="256"),
        put("config", "decoder", "iou_head_depth", value=10**6),
        put("config", "decoder", "mlp_width", value=-1),
        put("config", "decoder", "heads", value=0),
        put("config", "mask_channels", value=3),
        put("config", "resize", value="stretch"),
        put("config", "mean_rgb", value=[0, 0]),
        put("config", "std_rgb", value=[0, 1, 1]),
        put("config", "std_rgb", value=[float("nan"), 1, 1]),
        lambda _: "[" * 100_000,
        lambda _: '{"config": ' + '{"kind": "SamConfig", "encoder": ' * 900 + "0" + "}" * 901,
        lambda _: '{"name": "a", "config": ' + "9" * 5000 + "}",
        lambda _: "null",
    ],
)
def test_description_that_is_no_model(tmp_path: Path, change: Any) -> None:
    path = described(tmp_path / "a.safetensors", change)
    start = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        saved_spec(path)
    assert time.perf_counter() - start < 5
    assert str(path) in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 500
