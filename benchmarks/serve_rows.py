"""Rows of the benchmark of `segany serve`: times, what is required of them, and the page of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.setting import Setting


@dataclass(frozen=True)
class Limits:
    """What is required and what is aimed at, in milliseconds: the 95th percentile and, where given, the median."""

    target_p95: float
    aim_p95: float
    target_p50: float | None = None
    aim_p50: float | None = None

    def verdict(self, p50: float, p95: float) -> str:
        """Which of them a measurement reaches."""
        if p95 <= self.aim_p95 and (self.aim_p50 is None or p50 <= self.aim_p50):
            return "aim"
        if p95 <= self.target_p95 and (self.target_p50 is None or p50 <= self.target_p50):
            return "target"
        return "**missed**"


HOVER = Limits(160, 100, 80, 50)
NEXT_IMAGE = Limits(400, 200)
CROWD = Limits(100, 30)
FRAME = Limits(33.4, 16.7)
"""Two frames and one of a display with 60 Hz."""
LARGE_PROJECT = Limits(300, 100)
SAVE = Limits(500, 150)


@dataclass(frozen=True)
class Row:
    """Times of one kind, in milliseconds.

    Attributes:
        title: what was timed.
        limits: None for a time that nothing is required of.
        p50, p95: of all times.
        count: of times.
        note: what else there is to say, such as failures.
    """

    title: str
    limits: Limits | None
    p50: float
    p95: float
    count: int
    note: str = ""

    @classmethod
    def of(cls, title: str, limits: Limits | None, milliseconds: Sequence[float], note: str = "") -> Row:
        p50, p95 = np.percentile(milliseconds, [50, 95])
        return cls(title, limits, round(float(p50), 1), round(float(p95), 1), len(milliseconds), note)


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The page of results, from what is in the file."""
    lines = [
        "# `segany serve`",
        "",
        "Made by `python -m benchmarks.serve`: the real server as a process, MobileSAM on the CPU, SQLite, headless",
        "Chromium on the same machine, which also draws WebGL on the CPU. The clients share its cores. p50 and p95 are",
        "the median and the 95th percentile in milliseconds; limits with one number are for p95.",
        "",
        "Times of the page run from the time that the browser gives an event to the end of the frame that shows its",
        "effect, drawn by the page; a display shows it at its next refresh, and *shown* is the beginning of the frame",
        "after that, a late estimate.",
        "",
        "| what | at least | aim | p50 | p95 | times | reached | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    settings = []
    for name, result in results.items():
        setting = Setting(**result["setting"])
        load = f"{setting.load:.1f}{' (busy)' if setting.is_busy else ''}"
        machine = f"{setting.cpu}, {setting.cores} cores"
        settings.append(f"| {name} | {load} | {machine} | {setting.date} | {setting.commit} |")
        for values in result["rows"]:
            limits = Limits(**values["limits"]) if values["limits"] else None
            lines.append(_line(Row(**{**values, "limits": limits})))
    lines += [
        "",
        "| part | load before | machine | date | commit |",
        "|---|---|---|---|---|",
        *settings,
        "",
        "On a busy machine times say little: load is the 1-minute average of other programs, near zero on an idle one.",
    ]
    return "\n".join([*lines, ""])


def _line(row: Row) -> str:
    limits = row.limits
    target, aim, reached = ("", "", "")
    if limits:
        target = _pair(limits.target_p50, limits.target_p95)
        aim = _pair(limits.aim_p50, limits.aim_p95)
        reached = limits.verdict(row.p50, row.p95)
    return f"| {row.title} | {target} | {aim} | {row.p50:.0f} | {row.p95:.0f} | {row.count} | {reached} | {row.note} |"


def _pair(p50: float | None, p95: float) -> str:
    return f"{p95:g}" if p50 is None else f"{p50:g} / {p95:g}"
