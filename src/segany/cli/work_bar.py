"""Bars of long work, drawn on stderr where that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segany.core.progress import ProgressEvent

MEGABYTE = 1_000_000

SPEED_SECONDS = 600.0
"""The time left of many items is estimated from the speed over that long: items differ."""

LOADING_UNITS = ("", "bytes", "files")
"""Of events that a model is loaded, and not that items are processed."""

NAME_LENGTH = 40


def work_bar(speed_seconds: float = 30.0) -> Progress:
    """A bar with the time left on stderr, only where that is a terminal. Its tasks have a field `count`.

    Args:
        speed_seconds: how much of the past the time left is estimated from.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(stderr=True, soft_wrap=True, highlight=False),
        speed_estimate_period=speed_seconds,
        transient=True,
        redirect_stdout=False,  # stdout may be a file while stderr is a terminal
        disable=not sys.stderr.isatty(),
    )


class EventBars:
    """A `ProgressCallback` that draws a bar for each task it is told of. Use it in a `with` block.

    Nothing is drawn before the first event, so that what takes no time draws nothing.
    """

    def __init__(self, bars: Progress | None = None) -> None:
        """Draw on bars of one's own, or on those given, which somebody else starts and stops."""
        self._bars, self._is_shared = bars or work_bar(), bars is not None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> EventBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_shared:
            self._bars.stop()
        self.clear()

    def __call__(self, event: ProgressEvent) -> None:
        if not self._is_shared and not self._tasks:
            self._bars.start()
        if event.task not in self._tasks:
            self._tasks[event.task] = self._bars.add_task(event.task, total=event.total, count="")
        self._bars.update(self._tasks[event.task], completed=event.done, total=event.total, count=count_text(event))

    def clear(self) -> None:
        """Remove the bars."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()


class ItemBar:
    """One bar over many items, for the events of `segany.jobs.run`. Use it in a `with` block.

    Attributes:
        console: that prints lines around the bar.
    """

    def __init__(self, description: str, total: int | None = None, *, is_quiet: bool = False) -> None:
        """Prepare a bar over so many items; a quiet one is not drawn."""
        self._bars = work_bar(SPEED_SECONDS)
        self._bars.disable = self._bars.disable or is_quiet
        self.console = self._bars.console
        self._task = self._bars.add_task(description, total=total, count="")
        self._others = EventBars(self._bars)
        self._number, self._share, self._total, self._skipped = 0, 0.0, total, 0

    def __enter__(self) -> ItemBar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Move the bar: to the item that begins, or on within it. Loading the model has bars of its own."""
        if event.unit == "items":
            self._number, self._share, self._total = event.done, 0.0, event.total
            self._bars.update(self._task, description=shortened(event.task))
        elif event.unit in LOADING_UNITS:
            self._others(event)
            return
        else:
            self._share = event.done / event.total if event.total else 0.0
        self._others.clear()
        self._show()

    def skipped(self) -> None:
        """The item in hand was done before: that takes no time, and must not count towards the speed."""
        self._skipped += 1
        self._show()

    def describe(self, text: str) -> None:
        """Say what is done instead of the name of an item."""
        self._bars.update(self._task, description=text)

    def _show(self) -> None:
        total = None if self._total is None else self._total - self._skipped
        done = max(0, self._number - self._skipped)
        self._bars.update(self._task, completed=done + self._share, total=total, count=f"{done}/{total}")


def count_text(event: ProgressEvent) -> str:
    """How much of how much: "1.0/40.7 MB", "3/7 files"."""
    if not event.unit:
        return ""
    if event.unit == "bytes":
        total = "" if event.total is None else f"/{event.total / MEGABYTE:.1f}"
        return f"{event.done / MEGABYTE:.1f}{total} MB"
    return f"{event.done}{'' if event.total is None else f'/{event.total}'} {event.unit}"


def shortened(name: str) -> str:
    """The end of a long name."""
    return name if len(name) <= NAME_LENGTH else f"...{name[3 - NAME_LENGTH :]}"
