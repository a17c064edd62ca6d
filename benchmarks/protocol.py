"""The protocol between the harness and its workers.

The harness runs `python -m <worker> '<Job as JSON>'`; the worker does the job, writes its outputs to a file, and prints
a `Report` as JSON on its last line. Workers run in other environments. This module therefore requires only the standard
library, NumPy and Pillow.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
"""Outputs to compare. Boolean arrays [M, H, W] are masks, all others are numbers."""

RESIDENT = "resident_bytes"
"""Name of an output that is reported but not compared: the resident memory after each step of a call."""

Call: TypeAlias = Callable[[], Arrays]
"""A timed call, which returns its outputs as NumPy arrays, as users need them."""


@dataclass(frozen=True)
class Job:
    """The job of one process.

    Attributes:
        task: name of a task of the worker.
        weights: checkpoint of the model, the same file for both sides.
        image: image file.
        point_xy: foreground point for tasks with a prompt, in pixels of the image.
        clip: folder of the frames for tracking tasks, .jpg files named by numbers; "" for other tasks.
        points_xy: a foreground point in the first frame for each object.
        device: device of PyTorch.
        warmup: number of calls before timing.
        repeats: number of timed calls.
        outputs: path of the arrays of the last call, as .npz.
        started_at: `time.time()` when the harness started the process.
    """

    task: str
    weights: str
    image: str
    point_xy: tuple[float, float]
    device: str
    warmup: int
    repeats: int
    outputs: str
    clip: str = ""
    points_xy: tuple[tuple[float, float], ...] = ()
    started_at: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Read the image, uint8 RGB [H, W, 3]."""
        with Image.open(self.image) as image:
            return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Report:
    """The measurements of one process.

    Attributes:
        seconds: duration of each timed call.
        process_seconds: time from the start of the process to the end of the last call.
        peak_bytes: peak resident memory of the process.
        python: version of the interpreter.
        threads: `torch.get_num_threads()`, which the harness does not change.
        packages: versions of PyTorch, of the measured package and of its numerical dependencies.
        resident_bytes: the output `RESIDENT` of the last call.
    """

    seconds: list[float]
    process_seconds: float
    peak_bytes: int
    python: str
    threads: int
    packages: dict[str, str] = field(default_factory=dict)
    resident_bytes: list[int] = field(default_factory=list)

    @classmethod
    def from_output(cls, stdout: str) -> Report:
        """Parse the report on the last line of a worker's output."""
        return cls(**json.loads(stdout.rstrip().rpartition("\n")[2]))


def serve(tasks: Mapping[str, Callable[[Job], Call]], modules: tuple[str, ...]) -> None:
    """Run a worker: do the job on the command line and print the report.

    Args:
        tasks: for each task, a function that does the preparation and returns the call to time.
        modules: importable names of the packages whose versions are recorded.
    """
    job = Job(**json.loads(sys.argv[1]))
    call = tasks[job.task](job)
    for _ in range(job.warmup):
        call()
    seconds = []
    for _ in range(job.repeats):
        started = time.perf_counter()
        outputs = call()
        seconds.append(time.perf_counter() - started)
    process_seconds = time.time() - job.started_at  # this and the peak before the bookkeeping below adds to them
    peak_bytes = _peak_bytes()
    resident = outputs.pop(RESIDENT, np.empty(0))
    with Path(job.outputs).open("wb") as file:
        np.savez(file, **outputs)  # type: ignore[arg-type]  # releases before 2.1 have no allow_pickle here

    import torch  # no worker goes without

    report = Report(
        seconds=seconds,
        process_seconds=process_seconds,
        peak_bytes=peak_bytes,
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        packages=_versions(("torch", *modules)),
        resident_bytes=resident.astype(int).tolist(),
    )
    print(json.dumps(asdict(report)))


def resident_bytes() -> int:
    """Return the current resident memory; 0 if the system does not provide it."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else 0


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions(modules: tuple[str, ...]) -> dict[str, str]:
    """Return versions by distribution name. A module without a distribution, such as a stand-in, is "unversioned"."""
    distributions = packages_distributions()
    versions = {}
    for module in modules:
        for name in distributions.get(module, [module]):  # editable installs are not in the table
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = "unversioned"
    return versions
