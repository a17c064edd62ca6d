"""What the harness and its workers say to each other.

The harness starts `python -m <worker> '<Job as JSON>'`; the worker does the job, writes its outputs to a
file, and prints a `Report` as JSON on its last line. Workers run under other interpreters, so this
module needs only the standard library, NumPy and Pillow.
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
"""An output that is not compared but reported: the memory that was resident after each step of a call."""

Call: TypeAlias = Callable[[], Arrays]
"""What is timed. It returns its outputs as NumPy arrays, as a user would want them."""


@dataclass(frozen=True)
class Job:
    """One process's work.

    Attributes:
        task: name of a task of the worker.
        weights: checkpoint that the model is loaded from, the same file for both sides.
        image: image file.
        point_xy: the foreground point of tasks that prompt, in pixels of the image.
        clip: folder of the frames of tasks that track, .jpg files with numbers for names; "" for the others.
        points_xy: a foreground point in the first of them for each object.
        device: what torch calls the device.
        warmup: calls before the clock starts.
        repeats: calls that are timed, one by one.
        outputs: where the arrays of the last call go, as .npz.
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
        """The image, uint8 RGB [H, W, 3]."""
        with Image.open(self.image) as image:
            return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Report:
    """What one process measured.

    Attributes:
        seconds: duration of each timed call.
        process_seconds: from the start of the process to the end of the last call.
        peak_bytes: the most memory that was resident at once in the process's whole life.
        python: version of the interpreter.
        threads: `torch.get_num_threads()`, which the harness leaves as it is.
        packages: versions of torch, of the package measured and of what it computes with.
        resident_bytes: what the last call gave as `RESIDENT`.
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
        """The report on the last line of a worker's output."""
        return cls(**json.loads(stdout.rstrip().rpartition("\n")[2]))


def serve(tasks: Mapping[str, Callable[[Job], Call]], modules: tuple[str, ...]) -> None:
    """Be a worker: do the job on the command line and report.

    Args:
        tasks: for each task, a function that prepares everything and returns the call to time.
        modules: importable names of the packages whose versions are worth recording.
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
    """Memory that is resident now; 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else 0


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions(modules: tuple[str, ...]) -> dict[str, str]:
    """Versions by distribution name. A module that belongs to none (a stand-in, say) is unversioned."""
    distributions = packages_distributions()
    versions = {}
    for module in modules:
        for name in distributions.get(module, [module]):  # editable installs are not in the table
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = "unversioned"
    return versions
