"""`segany train` with a recipe of a tiny task on images of one color."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import picture, save
from typer.testing import CliRunner, Result

import segany
from segany.cli.app import app

RECIPE = '''"""Learns colors.

    segany train colors.py --out run
"""

from dataclasses import dataclass

import numpy as np
import torch

from segany.data.item import AnnotatedImage
from segany.data.transforms import ItemConfig
from segany.models.sam.config import SamConfig, VitConfig
from segany.core.instances import Instances
from segany.train.loop_config import LoopConfig
from segany.train.recipe import DataSplit, TrainingRecipe
from segany.train.task import ItemLoss


@dataclass(frozen=True)
class Numbers:
    """Of the task.

    Attributes:
        weight: of the loss.
        seconds: of a step.
    """

    weight: float = 1.0
    seconds: float = 0.0


class Colors:
    names = tuple(f"image-{number}" for number in range(6))

    def __len__(self):
        return len(self.names)

    def read(self, index):
        image = np.full((32, 32, 3), 40 * index, np.uint8)
        return AnnotatedImage(self.names[index], image, Instances.from_masks(np.eye(32, dtype=np.bool_)))


class Task:
    """Trains one bias of a whole model, so that little is computed."""

    def __init__(self, recipe, given):
        self.numbers = recipe.task
        self.module = given.model.requires_grad_(False)
        self.bias = given.model.mask_decoder.iou_prediction_head.layers[-1].bias.requires_grad_(True)

    def losses(self, items):
        import time

        time.sleep(self.numbers.seconds)
        return [ItemLoss(self.numbers.weight * (self.bias.mean() - item.image.mean() / 255) ** 2, {}) for item in items]

    def parameter_groups(self):
        return [{"params": [self.bias], "lr_scale": 1.0, "weight_decay": 0.0}]

    def validate(self):
        return {"score": float(self.bias.mean())}


RECIPE = TrainingRecipe(
    title="Colors",
    build=Task,
    task=Numbers(),
    items=ItemConfig(side=32, max_mask_fraction=1.0),
    loop=LoopConfig(steps=6, batch_size=2, lr=0.01, warmup_steps=2, decay_steps=(), validate_every=3),
    model=SamConfig(VitConfig(width=32, depth=1, heads=2, global_blocks=(), input_size=32)),
    datasets=lambda data, progress: DataSplit(Colors(), None),
)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colors.py").write_text(RECIPE)
    return tmp_path


def run(*arguments: str) -> Result:
    options = ["train", "colors.py", "--out", "run", "--device", "cpu", *arguments]
    return CliRunner().invoke(app, options, env={"COLUMNS": "200"})


def losses() -> list[float]:
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_and_its_model() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert shown[0] == "Colors"
    assert shown[1].startswith("step 3: score ")
    assert shown[1].endswith("(best)")
    assert shown[3] == "finished after step 6"
    assert "best: run/best.safetensors  after step 6, score " in shown[4]
    assert shown[5].endswith("segany segment photo.jpg --point 500,375 --model run/best.safetensors")
    model = segany.load("run/best.safetensors", device="cpu")
    assert (model.name, model.module.config.input_size) == ("colors", 32)
    described = json.loads(Path("run/config.json").read_text())
    assert described["recipe"] == "colors"
    assert described["loop"]["steps"] == 6


def test_stopping_and_going_on() -> None:
    assert run().exit_code == 0
    whole = losses()
    result = run("--resume")
    assert "finished after step 6" in result.stdout
    Path("run").rename("whole")
    result = run("--max-steps", "4")
    assert result.exit_code == 0
    assert "Stopped by --max-steps after step 4 of 6; the state is saved." in result.stdout
    assert run().exit_code == 2
    result = run("--resume")
    assert "resuming after step 4 of 6" in result.stdout
    assert losses() == whole


def test_a_signal_to_another_process_is_no_limit_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun: the training stops, though this process was told nothing."""
    from segany.train.distributed import DistributedContext

    monkeypatch.setattr(
        DistributedContext,
        "gather",
        lambda self, share: [dataclasses.replace(share, wants_stop=True)] if hasattr(share, "wants_stop") else [share],
    )
    result = run()
    assert "Interrupted after step 1 of 6; the state is saved." in result.stdout


def test_a_folder_of_another_run_is_refused_before_the_task_is_built() -> None:
    assert run("--max-steps", "1").exit_code == 0
    Path("colors.py").write_text(RECIPE.replace("    build=Task,", "    build=lambda *_: 1 / 0,"))
    for arguments, message in (([], "holds a run already"), (["--resume", "--set", "loop.lr=1"], "of another recipe")):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr


def test_fields_are_changed_and_explained() -> None:
    result = run("--set", "task.weight=0", "--set", "loop.steps=2")
    assert result.exit_code == 0, result.output
    assert losses() == [0.0, 0.0]
    result = run("--explain", "--set", "task.weight=7")
    assert "segany train colors.py --out run" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "task.weight" in line]
    assert [cell.strip() for cell in line.split("│")] == ["", "task.weight", "7.0", "of the loss.", ""]
    assert "loop.micro_batch_size" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "loop.decay_factor" in line]
    assert "(0.1)" in line
    assert "No effect: there are no decay_steps." in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "task.wieght=1"], "Did you mean task.weight?"),
        (["--set", "loop.lr=0"], "lr must be positive"),
        (["--device", "cuda:99"], "cannot be used here"),
        (["--val-data", "other"], "splits its data itself"),
        (["--model", "mobile_sma"], "There is no model 'mobile_sma'"),
        (["--out", "colors.py/run"], "is not a folder"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_no_data() -> None:
    Path("colors.py").write_text(RECIPE.replace("    datasets=lambda data, progress: DataSplit(Colors(), None),\n", ""))
    result = run()
    assert result.exit_code == 2
    assert "--data FOLDER" in result.stderr
    result = run("--data", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr


def test_help_says_what_each_field_is() -> None:
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"})
    assert "loop.warmup_steps = 250: number of steps of the linear warm-up" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals) -> None:
    code = "from segany.cli import main; main()"
    arguments = ["train", "colors.py", "--out", "run", "--device", "cpu", "--set", "loop.steps=100000"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--set", "task.seconds=0.02"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = Path("run/metrics.jsonl")
    end = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Resume with the same command and --resume." in output
    assert "Traceback" not in errors
    assert Path("run/state.safetensors").exists()


def test_how_data_are_read_and_what_they_leave_out(folder: Path) -> None:
    (folder / "colors.py").write_text(
        RECIPE.replace("    datasets=lambda data, progress: DataSplit(Colors(), None),\n", "")
    )
    for name in "abcd":
        save(folder / "data" / "images" / f"{name}.png", picture((32, 32)))
    for name in "abc":
        save(
            folder / "data" / "masks" / f"{name}.png", np.eye(32, dtype=np.uint8) + np.eye(32, k=5, dtype=np.uint8) * 2
        )
    result = run("--data", "data", "--val-fraction", "0", "--objects", "foreground", "--mask-threshold", "0.7")
    assert result.exit_code == 0, result.output
    assert "Left out of the data for training: 1 images without masks." in result.stderr
    (start,) = json.loads((folder / "run/environment.json").read_text())
    assert start["omitted"] == {"images without masks": 1}
    described = json.loads((folder / "run/config.json").read_text())
    assert (described["data"]["objects"], described["data"]["mask_threshold"]) == ("foreground", 0.7)
    other = run("--data", "data", "--val-fraction", "0", "--resume")
    assert "data.objects: 'foreground' there, 'auto' now" in other.stderr
    (folder / "colors.py").write_text(RECIPE)
    refused = run("--objects", "parts")
    assert (refused.exit_code, "opens its data itself" in refused.stderr) == (2, True)
