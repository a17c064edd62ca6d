"""What a run leaves in its folder, and a full disk."""

import errno
import itertools
import json
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tests.models_for_tests import small_sam
from tests.train.loop_for_tests import MeanTask
from tests.train.test_loop import changed, run

import segany
from segany.core.errors import CheckpointError, MissingExtraError, OutputError
from segany.models.configs import config_from_json, config_to_json
from segany.models.model_file import save_model, saved_spec, write_tensors
from segany.models.registry import MODELS
from segany.train.run_folder import RunFolder


def test_what_a_run_leaves(tmp_path):
    task = MeanTask()
    task.samples = lambda: [np.full((4, 6, 3), 200, np.uint8), np.full((2, 3, 3), 100, np.uint8)]
    run(tmp_path, changed(validate_every=4), task, description={"task": {"weight": 20.0}}, facts={"device": "cpu"})
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    board = [name for name in names if name.startswith("tensorboard/events.out.tfevents")]
    assert len(board) == 1
    assert set(names) - set(board) == {
        "best.safetensors",
        "config.json",
        "curves.png",
        "environment.json",
        "last.safetensors",
        "metrics.jsonl",
        "samples/step-000003.png",  # of every epoch
        "samples/step-000004.png",
        "samples/step-000006.png",
        "samples/step-000008.png",
        "skipped.json",
        "state.safetensors",
    }
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["task"] == {"weight": 20.0}
    assert described["loop"]["lr"] == 0.01
    (start,) = json.loads((tmp_path / "environment.json").read_text())
    assert (start["step"], start["device"], start["processes"]) == (0, "cpu", 1)
    assert start["torch"] == torch.__version__
    with Image.open(tmp_path / "samples" / "step-000008.png") as picture:
        assert picture.size == (6, 6)
    with Image.open(tmp_path / "curves.png") as picture:
        assert np.asarray(picture).std() > 1


def test_tensorboard_has_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, changed(steps=3))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "parts/error", "validation/score"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("number", "what"), [(0, "best.safetensors"), (2, "last.safetensors"), (3, "state.safetensors")]
)
def test_no_space_left_keeps_the_checkpoint(tmp_path, monkeypatch, number, what):
    config = changed(save_every=2, validate_every=2)
    run(tmp_path, config, max_steps=2)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    monkeypatch.setattr(safetensors.torch, "save_file", full_disk(number))
    with pytest.raises(OutputError, match=rf"{what} could not be written: there is no space left"):
        run(tmp_path, config, resume=True)
    monkeypatch.undo()
    for name, data in before.items():
        if what in ("best.safetensors", name):
            assert (tmp_path / name).read_bytes() == data, name
    assert not list(tmp_path.glob(".*.tmp"))
    _, _, result = run(tmp_path, config, resume=True)
    assert result.end == "finished"


def test_a_last_model_without_space_is_written_when_the_run_goes_on(tmp_path, monkeypatch):
    config = changed(save_every=None, validate_every=None)
    task = MeanTask()
    task.validate = lambda: {}  # so that the last model is the best
    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full_disk(0))
        with pytest.raises(OutputError, match=r"last\.safetensors could not be written"):
            run(tmp_path, config, task)
    task = MeanTask()
    task.validate = lambda: {}
    _, _, result = run(tmp_path, config, task, resume=True)
    saved = load_file(result.best)
    assert torch.equal(saved["head.weight"], task.module.head.weight)


def test_what_curves_need_is_asked_for_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    task = MeanTask()
    with pytest.raises(MissingExtraError, match=r"matplotlib.*segany\[train\]"):
        run(tmp_path, changed(), task)
    assert not task.runs


def full_disk(number):
    """`safetensors.torch.save_file`, except that the call of that number, from 0, fails as on a full disk."""
    save, calls = safetensors.torch.save_file, itertools.count()

    def write(tensors, path, metadata):
        if next(calls) == number:
            path.write_bytes(b"half")
            raise SafetensorError(f"Error while serializing: I/O error: x (os error {errno.ENOSPC})")
        save(tensors, path, metadata)

    return write


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the size of files")
def test_metrics_that_cannot_be_written(tmp_path):
    import resource

    with RunFolder(tmp_path) as folder:
        folder.open_logs(-1)
        folder.log({"step": 1, "loss": 1.0})
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size, before[1]))
        try:
            with pytest.raises(OutputError, match=r"metrics\.jsonl could not be written: File too large"):
                folder.log({"step": 2, "loss": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_tensors_that_share_memory_are_written_each(tmp_path):
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "a.safetensors", {"a": whole, "b": whole, "c": whole[2:4], "d": whole[::2]}, {})
    read = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {
        "a": [0, 1, 2, 3, 4, 5],
        "b": [0, 1, 2, 3, 4, 5],
        "c": [2, 3],
        "d": [0, 2, 4],
    }


def test_a_model_in_no_table_is_loaded_from_its_file(tmp_path):
    model = small_sam()
    path = save_model(model, tmp_path / "small.safetensors")
    loaded = segany.load(path, device="cpu")
    assert (loaded.module.config, loaded.name, loaded.encoder_id) == (model.config, "small", model.encoder_id)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.module.state_dict().items())


@pytest.mark.parametrize("name", list(MODELS))
def test_every_architecture_survives_json(name):
    config = MODELS[name].config
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_a_model_of_the_table_keeps_its_row(tmp_path):
    model = MODELS["mobile_sam"].build()
    path = save_model(model, tmp_path / "tuned.safetensors")
    assert saved_spec(path) is MODELS["mobile_sam"]


@pytest.mark.parametrize("config", [{"kind": "Sam9"}, {"kind": "SamConfig", "color": 3}, {"kind": "VitConfig"}, 7])
def test_a_description_of_another_version(tmp_path, config):
    described = json.dumps({"name": "x", "config": config})
    path = write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"segany.model": described})
    with pytest.raises(CheckpointError, match="does not understand"):
        segany.load(path)
