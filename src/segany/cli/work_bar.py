"""Progress bars of long work, drawn on stderr if that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segany.core.progress import ProgressEvent

MEGABYTE = 1_000_000

SPEED_SECONDS = 600.0
"""The remaining time of many items is estimated over this period, as items differ in cost."""

LOADING_UNITS = ("", "bytes", "files")
"""Units of the events of loading a model, as opposed to those of processing items."""

NAME_LENGTH = 40


def work_bar(speed_seconds: float = 30.0) -> Progress:
    """A bar with the remaining time on stderr, only if that is a terminal. Its tasks have a field `count`.

    Args:
        speed_seconds: period over which the speed is estimated.
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
    """A `ProgressCallback` that draws a bar for each task of the events. Use it in a `with` block.

    Nothing is drawn before the first event.
    """

    def __init__(self, bars: Progress | None = None) -> None:
        """Draw on new bars, or on given ones, which the caller starts and stops."""
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
        console: prints lines above the bar.
    """

    def __init__(self, description: str, total: int | None = None, *, is_quiet: bool = False) -> None:
        """Prepare a bar over `total` items; a quiet one is not drawn."""
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
        """Move the bar to the item that begins, or within the current item. Loading the model has bars of its own."""
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
        """The current item was done before: it takes no time, and does not count toward the speed."""
        self._skipped += 1
        self._show()

    def describe(self, text: str) -> None:
        """Show a text instead of the name of an item."""
        self._bars.update(self._task, description=text)

    def _show(self) -> None:
        total = None if self._total is None else self._total - self._skipped
        done = max(0, self._number - self._skipped)
        self._bars.update(self._task, completed=done + self._share, total=total, count=f"{done}/{total}")


def count_text(event: ProgressEvent) -> str:
    """The count of an event: "1.0/40.7 MB", "3/7 files"."""
    if not event.unit:
        return ""
    if event.unit == "bytes":
        total = "" if event.total is None else f"/{event.total / MEGABYTE:.1f}"
        return f"{event.done / MEGABYTE:.1f}{total} MB"
    return f"{event.done}{'' if event.total is None else f'/{event.total}'} {event.unit}"


def shortened(name: str) -> str:
    """A long name reduced to its end."""
    return name if len(name) <= NAME_LENGTH else f"...{name[3 - NAME_LENGTH :]}"
