"""How a download tells whoever waits for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ProgressCallback: TypeAlias = Callable[[str, int, int | None], None]
"""Called as `(what, done, total)`, sizes in bytes; `total` is None where the server does not say."""


def silent(what: str, done: int, total: int | None) -> None:
    """The `ProgressCallback` that tells nobody."""


@contextmanager
def terminal_progress() -> Iterator[ProgressCallback]:
    """A `ProgressCallback` that draws bars on stderr where that is a terminal, and is silent elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    bars = _TerminalBars()
    try:
        yield bars.report
    finally:
        bars.stop()


class _TerminalBars:
    """One bar for each thing reported. Drawn from the first report on, so a cache hit draws nothing."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def report(self, what: str, done: int, total: int | None) -> None:
        progress = self._progress or self._start()
        if what not in self._tasks:
            self._tasks[what] = progress.add_task(what, total=total)
        progress.update(self._tasks[what], completed=done, total=total)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        return self._progress
