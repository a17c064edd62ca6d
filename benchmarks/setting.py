"""The machine and the date of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

BUSY_LOAD = 0.3
"""A load average per core above which measurements are noise."""


@dataclass(frozen=True)
class Setting:
    """The machine and the date of a measurement.

    Attributes:
        date: start of the harness in UTC, ISO 8601.
        commit: commit of segany; ends in "-dirty" if its source has uncommitted changes.
        cpu: model of the CPU.
        cores: number of cores that the process may use.
        load: 1-minute load average before the first measurement; near zero on an idle machine.
    """

    date: str
    commit: str
    cpu: str
    cores: int
    load: float

    @classmethod
    def current(cls) -> Setting:
        """Return the current setting."""
        return cls(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            commit=_commit(),
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            load=round(os.getloadavg()[0], 2),
        )

    @property
    def is_busy(self) -> bool:
        """Whether the load of other programs would affect the measurements."""
        return self.load > BUSY_LOAD * self.cores


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--", "src") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu() -> str:
    """Return the model of the CPU, which Linux describes better than `platform`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
