"""Running a case: two workers in alternation, each in a process of its own.

This process stays small, and never imports torch: a child's peak memory starts at that of its parent.
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
    """A worker's process failed. The message ends with the last lines that it wrote."""


@dataclass(frozen=True)
class Inputs:
    """What the cases work on.

    Attributes:
        image: an image file.
        point_xy: a foreground point in its pixels.
        clip: a folder of video frames; made from a seed when None.
        weights: checkpoint of the cases with published weights; segany's own cache when None.
        scratch: folder for checkpoints and outputs on their way.
    """

    image: Path
    point_xy: tuple[float, float]
    clip: Path | None
    weights: Path | None
    scratch: Path


def measure(
    case: Case, inputs: Inputs, setting: Setting, *, peer_python: Path, rounds: int, announce: Callable[[str], None]
) -> Row:
    """Ours, peer, ours, peer: `rounds` of each, outputs compared every time.

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
    """Our side of a case alone, to see where a change leads. It makes no row: nothing is compared.

    Raises:
        WorkerError: a process failed.
    """
    job = make_job(case, inputs)
    return Side.of(case, [run_worker(job, python=OUR_PYTHON, worker=OURS)[0] for _ in range(rounds)])


def make_job(case: Case, inputs: Inputs) -> Job:
    """What both workers of a case are given, its checkpoint fetched or made."""
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
    """Start a worker, wait for it, and take its report and outputs."""
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
    """What the tables call the input."""
    if case.material == "clip":
        return inputs.clip.name if inputs.clip is not None else "moving shapes"
    return "noise" if case.material == "noise" else inputs.image.name


def _run(python: Path, module: str, *arguments: str) -> str:
    """`python -m module` from the root of the repository; what it printed."""
    command = [str(python), "-m", module, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        last_lines = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise WorkerError(f"{python} -m {module} ended with status {done.returncode}:\n{last_lines}")
    return done.stdout
