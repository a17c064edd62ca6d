"""Commands that are killed at any moment, and run once more: the same files as if nothing had happened, and no litter.

Signals that ask a process to end are other than that: it keeps what is finished, and leaves nothing half-written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tests.cli.test_train import RECIPE
from tests.data_for_tests import block, picture, save
from tests.hub.local_server import Page, Server
from tests.models_for_tests import SMALL_TINY_VIT, small_sam, small_sam2

from segany.models.model_file import save_model

COMMAND = [sys.executable, "-c", "from segany.cli import main; main()"]

Run = tuple[list[str], Path]
"""A command, and the folder of what it makes."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_model(small_sam(SMALL_TINY_VIT), folder / "sam.safetensors")
    save_model(small_sam2(), folder / "sam2.safetensors")
    for number in range(6):
        save(folder / "images" / f"{number}.png", picture((60, 80), number))
    return folder


def auto(inputs: Path, out: Path) -> Run:
    options = ["--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0"]
    formats = ["--format", "coco,label-map,masks-png,npz", "--embeddings", str(out / "embeddings")]
    model = ["--model", str(inputs / "sam.safetensors"), "--device", "cpu"]
    return [*COMMAND, "auto", str(inputs / "images"), "--out", str(out), *model, *options, *formats], out


def segment(inputs: Path, out: Path) -> Run:
    model = ["--model", str(inputs / "sam.safetensors"), "--device", "cpu"]
    return [*COMMAND, "segment", str(inputs / "images"), "--point", "40,30", "--out", str(out), *model], out


def track(inputs: Path, out: Path) -> Run:
    model = ["--model", str(inputs / "sam2.safetensors"), "--device", "cpu"]
    formats = ["--format", "masks-png,sav,npz"]
    return [*COMMAND, "track", str(inputs / "images"), "--point", "0:40,30", "--out", str(out), *model, *formats], out


def export(inputs: Path, out: Path) -> Run:
    return [*COMMAND, "export", str(inputs / "sam.safetensors"), "--out", str(out / "onnx")], out


def train(inputs: Path, out: Path) -> Run:
    recipe = inputs / "colors.py"
    recipe.write_text(RECIPE)
    settings = ["--set", "loop.steps=30", "--set", "loop.save_every=2", "--set", "task.seconds=0.05"]
    return [*COMMAND, "train", str(recipe), "--out", str(out), "--device", "cpu", "--resume", *settings], out


NOTES = (".segany", "tensorboard", "environment.json", "metrics.jsonl")
"""Files and folders that name when, where or how fast."""


def content_of(path: Path) -> bytes:
    """The bytes of a file; of safetensors, which write metadata in any order, what they hold."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, "numpy") as file:
        tensors = [(name, file.get_tensor(name).tobytes()) for name in sorted(file.keys())]
        return repr((sorted((file.metadata() or {}).items()), tensors)).encode()


def files_of(folder: Path) -> dict[str, str]:
    """Every file and its digest, without notes that name when or where."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content_of(path)).hexdigest()
        for path in files
        if not set(NOTES) & set(path.relative_to(folder).parts)
    }


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


def kill_and_rerun(make: Callable[[Path, Path], Run], inputs: Path, tmp_path: Path, kills: int, seed: int) -> None:
    """Killed at random moments of a run again and again, then run to its end."""
    command, whole = make(inputs, tmp_path / "whole")
    start = time.perf_counter()
    run(command)
    seconds = time.perf_counter() - start
    expected = files_of(whole)
    assert expected
    rng = random.Random(seed)
    command, out = make(inputs, tmp_path / "killed")
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(rng.uniform(0.3, 1.0) * seconds)
            process.kill()
    run(command)
    assert files_of(out) == expected
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("make", [auto, track, train])
def test_a_killed_command_that_runs_again_makes_the_same(
    make: Callable[[Path, Path], Run], inputs: Path, tmp_path: Path
) -> None:
    kill_and_rerun(make, inputs, tmp_path, kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("make", [auto, track, export, train])
@pytest.mark.parametrize("seed", range(5))
def test_a_command_that_is_killed_often_makes_the_same(
    make: Callable[[Path, Path], Run], seed: int, inputs: Path, tmp_path: Path
) -> None:
    kill_and_rerun(make, inputs, tmp_path, kills=6, seed=seed)


def ask_to_end(
    command: list[str], number: int, is_at_work: Callable[[], object], environment: dict[str, str] | None = None
) -> None:
    """Send a signal to a command when it is at work. It ends as by Ctrl-C: with its exit code, and no traceback."""
    given = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given) as process:
        while not is_at_work():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(number)
        shown, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in shown + err


def many_images(command: list[str], inputs: Path, folder: Path) -> list[str]:
    """The command on so many images that it is met at work: the same one again and again."""
    folder.mkdir()
    for index in range(400):
        (folder / f"{index:04d}.png").hardlink_to(inputs / "images" / "0.png")
    return [str(folder) if argument == str(inputs / "images") else argument for argument in command]


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
@pytest.mark.parametrize("make", [auto, track, segment])
def test_a_command_that_is_asked_to_end_keeps_what_is_finished(
    make: Callable[[Path, Path], Run], number: int, inputs: Path, tmp_path: Path
) -> None:
    command, out = make(inputs, tmp_path / "out")
    command = many_images(command, inputs, tmp_path / "images")
    if make is segment:  # it takes files, not folders
        at = command.index(str(tmp_path / "images"))
        command[at : at + 1] = map(str, sorted((tmp_path / "images").iterdir()))
    scratch = tmp_path / "scratch"  # not that of tests beside this one
    scratch.mkdir()

    def is_at_work() -> bool:
        return any(list(out.rglob(one)) for one in ("*_coco.json", "*_masks/*.png", "*_mask.png"))

    ask_to_end(command, number, is_at_work, {"TMPDIR": str(scratch)})
    assert not list(out.rglob("*.tmp"))
    assert not list(scratch.glob("segany-session-*"))
    for path in out.rglob("*_mask.png"):
        Image.open(path).load()  # whole
    if make is track:
        assert list(out.rglob("*_sav.json"))  # of the frames that were tracked


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_evaluation_that_is_asked_to_end_goes_on(number: int, inputs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for index in range(12):
        save(data / "images" / f"{index:02d}.png", picture((60, 80), index))
        save(data / "masks" / f"{index:02d}.png", block((60, 80), 10, 10, 40, 50).astype(np.uint8))

    def evaluate(out: Path) -> list[str]:
        return [*COMMAND, "evaluate", str(data), "--model", str(inputs / "sam.safetensors"), "--out", str(out)]

    run(evaluate(tmp_path / "whole"))
    out = tmp_path / "asked"
    ask_to_end(evaluate(out), number, lambda: list(out.rglob(".segany/*.json")))
    done = len(list(out.rglob(".segany/*.json")))
    assert 0 < done < 12
    assert not list(out.rglob("*.tmp"))
    run(evaluate(out))
    results = [json.loads((folder / "data" / "results.json").read_text()) for folder in (out, tmp_path / "whole")]
    assert results[0]["protocols"] == results[1]["protocols"]


@SIGNALS
def test_a_download_that_is_asked_to_end_goes_on(number: int, tmp_path: Path) -> None:
    body = random.Random(0).randbytes(8_000_000)
    with serving(Page(body=body, breaks_after=2_000_000, waits_for=threading.Event())) as server:
        command = [sys.executable, "-c", PULL, f"{server.url}/weights.pt", hashlib.sha256(body).hexdigest()]
        cache = {"SEGANY_CACHE": str(tmp_path)}
        ask_to_end(command, number, lambda: server.requests, cache)
        server.pages["/weights.pt"] = Page(body=body)
        subprocess.run(command, check=True, env={**os.environ, **cache}, capture_output=True)
    [weights] = tmp_path.rglob("weights.pt")
    assert weights.read_bytes() == body
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_training_that_is_asked_to_end_saves_and_goes_on(number: int, inputs: Path, tmp_path: Path) -> None:
    command, out = train(inputs, tmp_path / "run")
    run(train(inputs, tmp_path / "whole")[0])
    metrics = out / "metrics.jsonl"
    ask_to_end(command, number, lambda: metrics.exists() and metrics.stat().st_size)
    assert not list(out.rglob("*.tmp"))
    assert (out / "state.safetensors").exists()
    run(command)
    assert files_of(out) == files_of(tmp_path / "whole")


@SIGNALS
def test_an_export_that_is_asked_to_end_leaves_nothing(number: int, inputs: Path, tmp_path: Path) -> None:
    command, out = export(inputs, tmp_path)
    ask_to_end(command, number, lambda: list(tmp_path.glob("*.tmp")))
    assert not (out / "onnx").exists()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_is_no_traceback(closed: str) -> None:
    redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    line = f'"{sys.executable}" -c "from segany.cli import main; main()" models {redirect}'
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr + result.stdout
    assert result.returncode in (0, 2)


@pytest.mark.parametrize("milliseconds", [20, 60, 120, 250, 400])
def test_ctrl_c_while_it_starts_is_no_traceback(milliseconds: int) -> None:
    with subprocess.Popen([*COMMAND, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    if milliseconds >= 120:  # before that, Python itself may not be ready
        assert "Traceback" not in err, err


PULL = """
import sys
from dataclasses import replace
from segany.cli import main
from segany.models.registry import MODELS, UrlSource

url, sha256 = sys.argv[1:]
MODELS["served"] = replace(MODELS["mobile_sam"], name="served", sources=(UrlSource(url, sha256=sha256),))
sys.argv = ["segany", "weights", "pull", "served"]
main()
"""
"""`segany weights pull` of a model whose weights a server on this machine has."""

DOWNLOAD = """
import os, sys
from pathlib import Path
from segany.hub.fetch import download

url, part, sha256, kill_after = sys.argv[1:]

def killed(event):
    if event.done > int(kill_after):
        os.kill(os.getpid(), 9)

download(url, Path(part), sha256, killed)
"""


@contextlib.contextmanager
def serving(page: Page) -> Iterator[Server]:
    """A server that has the page at /weights.pt."""
    with Server() as server:
        server.pages["/weights.pt"] = page
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            if page.waits_for is not None:
                page.waits_for.set()
            server.shutdown()
            thread.join()


def test_a_download_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    body = random.Random(0).randbytes(8_000_000)
    part, sha256 = tmp_path / "weights.pt.part", hashlib.sha256(body).hexdigest()
    with serving(Page(body=body)) as server:
        command = [sys.executable, "-c", DOWNLOAD, f"{server.url}/weights.pt", str(part), sha256]
        killed = subprocess.run([*command, "3000000"], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert 0 < part.stat().st_size < len(body)
        subprocess.run([*command, "99999999"], check=True)
    assert part.read_bytes() == body
    assert server.gets("/weights.pt")[-1].range is not None
