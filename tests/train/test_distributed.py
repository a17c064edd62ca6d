"""Two processes, in gloo: the losses of one at the same global batch."""

import json
import os
import socket
import subprocess
import sys

import pytest
from tests.train.loop_for_tests import MemoryBatches
from tests.train.test_loop import changed, run

from segany.core.errors import ConfigError
from segany.train.distributed import init_distributed

PROGRAM = """
import gc
import sys
from pathlib import Path
from tests.train.loop_for_tests import MeanTask, MemoryBatches
from tests.train.test_loop import changed
from segany.core.errors import TrainingError
from segany.core.progress import Cancellation
from segany.train.loop import train
from segany.train.distributed import init_distributed
from segany.train.run_folder import RunFolder

folder = Path(sys.argv[1])
RunFolder.draw = lambda folder: None  # takes longer than all the rest
with init_distributed("cpu") as (processes, device):
    process = (processes.rank, processes.world_size)
    task = MeanTask()
    if processes.rank:  # weights are those of the main process
        task.module.head.weight.data.zero_()
    cancellation = Cancellation()

    def progress(event):
        if processes.rank == 1 and len(task.runs) == 5:  # one cancels, both stop
            cancellation.cancel()
        cancellation.check()

    config = changed(micro_batch_size=2, validate_every=4)
    first = train(task, MemoryBatches(bad=[3], process=process), config, folder, processes=processes, progress=progress)
    assert first.end == "interrupted"
    assert first.step == 5, first.step
    batches = MemoryBatches(bad=[3], process=process)
    train(MeanTask(), batches, config, folder, processes=processes, resume=True)
    task = MeanTask()
    task.nan_for = "item-5"
    try:
        train(task, MemoryBatches(process=process), config, folder / "nan", processes=processes)
    except TrainingError as error:
        print(error)
gc.collect()
threads = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]  # none but on Linux
assert not any("gloo" in name for name in threads), threads  # they would abort the process, if rarely
"""


def run_two(folder) -> list[str]:
    """What each of two processes printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])  # noqa: PTH109
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            env={**os.environ, **common, "PYTHONPATH": paths, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]


def test_two_processes_learn_what_one_does(tmp_path):
    """Items are dealt out in turn, one is bad, and the last batches of epochs are small, so shares are uneven.

    They are stopped by a signal to one of them, and resumed. Then an item has a bad loss, in one of them.
    """
    one, _, _ = run(tmp_path / "one", changed(validate_every=4), batches=MemoryBatches(bad=[3]))
    outputs = run_two(tmp_path / "two")
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["loss"] for line in steps] == pytest.approx(one.losses, rel=1e-5)
    assert [line["items"] for line in steps] == [step.items for step in one.steps]
    assert [line["grad_norm"] for line in steps] == pytest.approx([step.grad_norm for step in one.steps], rel=1e-5)
    assert [line["step"] for line in lines if "validation" in line] == [3, 4, 6, 8]
    assert "item-5: nan" in outputs[0]
    assert outputs[0] == outputs[1]


def test_alone_without_torchrun():
    with init_distributed("cpu") as (processes, device):
        assert (processes.rank, processes.world_size, device.type) == (0, 1, "cpu")


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="'cuda:99' cannot be used"), init_distributed("cuda:99"):
        pass


@pytest.mark.parametrize("device", ["meta", "nonsense", "cpu:x"])
def test_devices_that_hold_nothing(device):
    with pytest.raises(ConfigError, match="cannot be used"), init_distributed(device):
        pass


def test_a_variable_that_is_no_number(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE must be a whole number, got 'many'"), init_distributed("cpu"):
        pass
