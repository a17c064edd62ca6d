"""What a run leaves in its folder, and a full disk."""

import errno
import itertools
import json
import os
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tests.models_for_tests import small_sam
from tests.train.loop_for_tests import MeanTask, MemoryBatches
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


DAMAGE = {
    "binary": b"\x00\xff\xfe\x80" * 50,
    "torn": b'{"step": 2, "lo',
    "long": b'{"step": 2, "a": "' + b"a" * 100_000_000,
    "a number": b"7",
    "a list": b"[1, 2]",
    "without a step": b'{"loss": 1.0}',
    "a step that is text": b'{"step": "2", "loss": 1.0}',
    "not a number": b'{"step": 2, "loss": NaN}',
    "text as loss": b'{"step": 2, "loss": "much"}',
    "a list as scores": b'{"step": 2, "validation": [1]}',
    "nested": b"[" * 100_000,
    "a huge number": b'{"step": 1' + b"0" * 400 + b"}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_lines_of_metrics_are_left_out_with_a_warning(tmp_path, caplog, damage):
    config = changed(save_every=4)
    run(tmp_path, config, max_steps=4)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0] + DAMAGE[damage] + b"\n")
    run(tmp_path, config, resume=True)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines() if "loss" in json.loads(line)]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "metrics.jsonl are damaged" in caplog.text


@pytest.mark.parametrize("name", ["metrics.jsonl", "skipped.json", "environment.json"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_place_of_a_file_of_the_run_is_named(tmp_path, name, make):
    run(tmp_path, max_steps=4)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(OutputError, match=name.replace(".", r"\.")):
        run(tmp_path, batches=MemoryBatches(bad=[3]), resume=True)


@pytest.mark.parametrize("name", ["skipped.json", "environment.json"])
@pytest.mark.parametrize(
    "content",
    [b"\xff\x00", b"7", b"[[[", b'"a"', b'{"damaged": 7}', b'{"damaged": {}, "without_masks": 3}'],
    ids=["binary", "number", "torn", "text", "damaged as number", "images as number"],
)
def test_damaged_notes_are_written_anew_with_a_warning(tmp_path, caplog, name, content):
    batches = MemoryBatches(bad=[3])
    run(tmp_path, max_steps=4, batches=batches)
    (tmp_path / name).write_bytes(content)
    run(tmp_path, resume=True, batches=MemoryBatches(bad=[3]))
    assert json.loads((tmp_path / name).read_text())
    assert f"{name} is damaged" in caplog.text


@pytest.mark.parametrize(
    "facts",
    [
        "7",
        "null",
        "[" * 10**5,
        '{"version": 1}',
        '{"version": 1, "frozen": "", "step": -1}',
        '{"version": 1, "frozen": "", "step": "many"}',
    ],
    ids=["number", "null", "nested", "without facts", "negative step", "step of text"],
)
def test_a_training_state_that_is_damaged_is_named(tmp_path, facts):
    run(tmp_path, max_steps=4)
    state = tmp_path / "state.safetensors"
    safetensors.torch.save_file(load_file(state), state, {"segany.training": facts})
    with pytest.raises(CheckpointError, match=r"state\.safetensors is"):
        run(tmp_path, resume=True)


def test_an_optimizer_of_another_shape_is_named(tmp_path):
    run(tmp_path, max_steps=4)
    state = tmp_path / "state.safetensors"
    with safetensors.safe_open(state, "pt") as file:
        facts = file.metadata()
    tensors = load_file(state)
    name = next(name for name in tensors if name.startswith("optimizer/exp_avg/"))
    safetensors.torch.save_file({**tensors, name: torch.zeros(7)}, state, facts)
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged: exp_avg of"):
        run(tmp_path, resume=True)
