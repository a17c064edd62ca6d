"""What `segany.load` takes for a name, a path and a dtype, and whom it tells of a download."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from tests.models_for_tests import SMALL_TINY_VIT, small_sam

import segany
from segany import CheckpointError, ConfigError, UnknownModelError
from segany.core.progress import ProgressEvent
from segany.models import registry
from segany.models.convert import encoder_id
from segany.models.model_file import save_model


@pytest.mark.weights
def test_a_model_by_name(mobile_sam_path, monkeypatch):
    monkeypatch.setenv("SEGANY_CACHE", str(mobile_sam_path.parents[2]))
    monkeypatch.setenv("SEGANY_OFFLINE", "1")
    model = segany.load("mobile_sam")
    assert model.name == "mobile_sam"
    assert model.encoder_id == encoder_id(model.module.image_encoder) == segany.load(mobile_sam_path).encoder_id
    assert model.encoder_id == "8fa697eca86e298e"


def test_a_download_tells_its_progress_and_draws_nothing(url_spec, body, monkeypatch, capfd):
    monkeypatch.setitem(registry.MODELS, "tiny", url_spec)
    told = []
    with pytest.raises(CheckpointError):  # what is served is no checkpoint
        segany.load("tiny", progress=told.append)
    assert told[-1] == ProgressEvent("tiny.pt", len(body), len(body), "bytes")
    assert capfd.readouterr() == ("", "")


def test_a_file_is_a_path_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.jpg is"):
        segany.load("text.jpg")
    with pytest.raises(UnknownModelError):
        segany.load("x" * 5000)


@pytest.mark.parametrize("dtype", ["float16", torch.int64])
def test_a_dtype_that_is_no_float(dtype):
    with pytest.raises(ConfigError, match="dtype is a floating-point"):
        segany.load("missing.pt", dtype=dtype)


def test_weights_that_are_integers_are_refused_by_name(tmp_path):
    state = {name: value.to(torch.int32) for name, value in small_sam(SMALL_TINY_VIT).state_dict().items()}
    path = save_model(small_sam(SMALL_TINY_VIT), tmp_path / "whole.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        described = file.metadata()
    safetensors.torch.save_file(state, tmp_path / "integers.safetensors", described)
    with pytest.raises(CheckpointError, match=r"integers\.safetensors holds weights that are no numbers of a model"):
        segany.load(tmp_path / "integers.safetensors", device="cpu")
