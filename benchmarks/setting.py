"""Where and when measurements are made."""

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
    """Where and when the harness was started.

    Attributes:
        date: UTC, ISO 8601.
        commit: of segany; ends in "-dirty" where its source had changes.
        cpu: its model.
        cores: how many of them the process may use.
        load: 1-minute load average before anything ran; near zero on a quiet machine.
    """

    date: str
    commit: str
    cpu: str
    cores: int
    load: float

    @classmethod
    def current(cls) -> Setting:
        """Here and now."""
        return cls(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            commit=_commit(),
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            load=round(os.getloadavg()[0], 2),
        )

    @property
    def is_busy(self) -> bool:
        """Whether other programs would show in what is measured."""
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
    """The model of the CPU; Linux says more than `platform` does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
