"""Execution of a case: two workers in alternation, each in a separate process.

This process stays small and never imports PyTorch, because the peak memory of a child starts at that of its parent.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.agreement import compare
from benchmarks.cases import FRAMES_BEFORE, FRAMES_TIMED, OURS, Case
from benchmarks.clip import POINTS_XY, write_clip
from benchmarks.protocol import Arrays, Job, Report
from benchmarks.rows import Conditions, Row, Side, make_row
from benchmarks.setting import REPOSITORY, Setting

OUR_PYTHON = Path(sys.executable)


class WorkerError(Exception):
    """A worker process failed. The message ends with the last lines of its output."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of the cases.

    Attributes:
        image: an image file.
        point_xy: a foreground point in pixels of the image.
        clip: folder of video frames; None to generate a clip from a seed.
        weights: checkpoint for cases with published weights; None for the cache of segany.
        scratch: folder for generated checkpoints and temporary outputs.
    """

    image: Path
    point_xy: tuple[float, float]
    clip: Path | None
    weights: Path | None
    scratch: Path


def measure(
    case: Case, inputs: Inputs, setting: Setting, *, peer_python: Path, rounds: int, announce: Callable[[str], None]
) -> Row:
    """Run ours and the peer in alternation for a number of rounds, and compare the outputs of each round.

    Raises:
        WorkerError: a process of either side failed.
    """
    job = make_job(case, inputs)
    peer_job = replace(job, task=case.peer_task or case.task)
    if case.peer == OURS:
        peer_python = OUR_PYTHON
    ours, peer, checks = [], [], []
    for number in range(1, rounds + 1):
        our_report, our_outputs = run_worker(job, python=OUR_PYTHON, worker=OURS)
        peer_report, peer_outputs = run_worker(peer_job, python=peer_python, worker=case.peer)
        ours.append(our_report)
        peer.append(peer_report)
        checks.append(compare(our_outputs, peer_outputs))
        ratio = case.ratio(case.value(our_report), case.value(peer_report))
        problems = "".join(f"; {check.problem}" for check in checks[-1] if not check.passed)
        announce(f"round {number} of {rounds}: {ratio:.2f}x{problems}")
    conditions = Conditions(
        setting=setting,
        image=_material_name(case, inputs),
        device=case.device,
        warmup=case.warmup,
        repeats=case.repeats,
    )
    return make_row(case, Side.of(case, ours), Side.of(case, peer), checks, conditions)


def measure_ours(case: Case, inputs: Inputs, *, rounds: int) -> Side:
    """Run our side of a case alone, during development. There is no row, since nothing is compared.

    Raises:
        WorkerError: a process failed.
    """
    job = make_job(case, inputs)
    return Side.of(case, [run_worker(job, python=OUR_PYTHON, worker=OURS)[0] for _ in range(rounds)])


def make_job(case: Case, inputs: Inputs) -> Job:
    """Make the job for both workers of a case; fetches or generates the checkpoint."""
    return Job(
        task=case.task,
        weights=str(_checkpoint(case, inputs)),
        image=str(inputs.image.resolve()),
        point_xy=inputs.point_xy,
        device=case.device,
        warmup=case.warmup,
        repeats=case.repeats,
        outputs=str(inputs.scratch / "outputs.npz"),
        clip=str(_clip(inputs)) if case.material == "clip" else "",
        points_xy=POINTS_XY[: case.objects],
    )


def run_worker(job: Job, *, python: Path, worker: str) -> tuple[Report, Arrays]:
    """Run a worker process. Returns its report and outputs."""
    outputs = Path(job.outputs)
    outputs.unlink(missing_ok=True)
    report = Report.from_output(_run(python, worker, replace(job, started_at=time.time()).to_json()))
    with np.load(outputs) as arrays:
        return report, dict(arrays)


def _checkpoint(case: Case, inputs: Inputs) -> Path:
    if case.seeded:
        path = inputs.scratch / f"{case.model}.pth"
        if not path.exists():
            _run(OUR_PYTHON, "benchmarks.noise", case.model, str(path))
        return path
    if inputs.weights is not None:
        return inputs.weights.resolve()
    from segany.hub import fetch_weights
    from segany.models.registry import find_spec

    return fetch_weights(find_spec(case.model))


def _clip(inputs: Inputs) -> Path:
    if inputs.clip is not None:
        return inputs.clip.resolve()
    folder = inputs.scratch / "clip"
    if not folder.exists():
        write_clip(folder, FRAMES_BEFORE + FRAMES_TIMED)
    return folder


def _material_name(case: Case, inputs: Inputs) -> str:
    """Return the name of the input in the tables."""
    if case.material == "clip":
        return inputs.clip.name if inputs.clip is not None else "moving shapes"
    return "noise" if case.material == "noise" else inputs.image.name


def _run(python: Path, module: str, *arguments: str) -> str:
    """Run `python -m module` in the root of the repository. Returns its output."""
    command = [str(python), "-m", module, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        last_lines = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise WorkerError(f"{python} -m {module} ended with status {done.returncode}:\n{last_lines}")
    return done.stdout
