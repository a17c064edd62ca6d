"""A reference to a model goes to another process, and loads there what was meant."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.exported import exported
from tests.models_for_tests import loaded, small_sam

import segany
from segany import CheckpointError, ConfigError, ModelRef
from segany.models.model_file import save_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_model(small_sam(), tmp_path / "small.safetensors")


def what_is_loaded(ref: ModelRef) -> tuple[str, str, str]:
    model = ref.load()
    return model.name, model.encoder_id, model.weights_sha256


def test_another_process_loads_the_same(checkpoint: Path) -> None:
    model = segany.load(checkpoint, device="cpu")
    ref = ModelRef.of(model)
    assert ref.model == str(checkpoint)
    assert pickle.loads(pickle.dumps(ref)) == ref
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(what_is_loaded, ref).result()
    assert found == (model.name, model.encoder_id, ref.weights_sha256)


def test_other_weights_are_refused(checkpoint: Path) -> None:
    ref = ModelRef.of(segany.load(checkpoint, device="cpu"))
    other = small_sam()
    with torch.no_grad():
        other.mask_decoder.iou_token.weight[0, 3] += 1e-3
    save_model(other, checkpoint)
    with pytest.raises(CheckpointError, match="has other weights than it had"):
        ref.load()


def test_a_model_that_learned_since_is_refused(checkpoint: Path) -> None:
    model = segany.load(checkpoint, device="cpu")
    with torch.no_grad():
        model.module.heads()[1].iou_token.weight.mul_(1.1)
    with pytest.raises(CheckpointError, match="save a changed model"):
        ModelRef.of(model).load()


def test_the_precision_is_part_of_it(checkpoint: Path) -> None:
    ref = ModelRef.of(segany.load(checkpoint, device="cpu", dtype=torch.bfloat16))
    assert ref.precision == "bfloat16"
    model = ref.load()
    assert isinstance(model, segany.runtime.torch_model.TorchModel)
    assert model.dtype == torch.bfloat16


def test_an_exported_model_is_referred_to_by_its_folder() -> None:
    ref = ModelRef.of(segany.load(exported("sam")))
    assert (ref.model, ref.runtime, ref.precision) == (str(exported("sam")), "onnx", "fp32")
    assert what_is_loaded(ref)[2] == ref.weights_sha256


def test_a_model_from_nowhere_has_no_reference() -> None:
    with pytest.raises(ConfigError, match="was not loaded from anywhere"):
        ModelRef.of(loaded(small_sam()))


@pytest.mark.parametrize("send", [pickle.dumps, copy.deepcopy])
def test_an_exported_model_itself_is_not_sent(send: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"segany\.ModelRef\.of\(model\)"):
        send(segany.load(exported("sam")))
