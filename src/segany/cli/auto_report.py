"""What `segany auto` tells of its work: a bar with the time left on stderr, and a line an image on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.text import Text

from segany.cli.work_bar import work_bar
from segany.core.errors import SeganyError
from segany.jobs.pipeline import ImageReport

SPEED_SECONDS = 600.0
"""The time left is reckoned from the speed of that long: images differ."""


class AutoReporter:
    """Watches a `Pipeline`. Use it in a `with` block; the bar is there only where stderr is a terminal.

    Attributes:
        failures: the images that could not be done, and why.
        done, skipped_count: how many images were done now, and how many before.
    """

    def __init__(self, images: int, *, as_json: bool) -> None:
        """Prepare to tell of so many images, in JSON for programs or in words for people."""
        self.as_json = as_json
        self.failures: list[tuple[Path, SeganyError]] = []
        self.done = self.skipped_count = 0
        self._current: Path | None = None
        self._images, self._begun, self._unreadable, self._fraction = images, 0, 0, 0.0
        self._progress = work_bar(SPEED_SECONDS)
        self._task = self._progress.add_task("reading", total=images, count="")
        # On one terminal, lines have to go around the bar.
        shares_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        plain = Console(soft_wrap=True, highlight=False)
        self._lines = self._progress.console if shares_terminal else plain

    def __enter__(self) -> AutoReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, source: Path) -> None:
        """An image goes into the model."""
        self._begun += 1
        self._fraction = 0.0
        self._current = source
        self._progress.update(self._task, description=source.name)
        self._show()

    def progressed(self, done: int, total: int) -> None:
        """So many points of so many are done of that image."""
        self._fraction = done / total if total else 0.0
        self._show()

    def skipped(self, source: Path) -> None:
        """An image was done before."""
        self.skipped_count += 1
        self._show()
        self._tell({"image": str(source), "status": "skipped"}, None)

    def failed(self, source: Path, error: SeganyError) -> None:
        """An image cannot be done."""
        self.failures.append((source, error))
        self._unreadable += source != self._current  # it never went into the model
        self._show()
        self._tell({"image": str(source), "status": "failed", "error": str(error)}, None)

    def finished(self, report: ImageReport) -> None:
        """All files of an image are written."""
        self.done += 1
        self._show()
        height, width = report.instances.size_hw
        facts = {
            "image": str(report.source),
            "status": "done",
            "size_hw": [height, width],
            "masks": len(report.instances),
            "seconds": round(report.seconds, 4),
            "files": {name: [str(path) for path in paths] for name, paths in report.files.items()},
        }
        count = f"{len(report.instances)} mask{'' if len(report.instances) == 1 else 's'}"
        words = Text.assemble((str(report.source), "bold"), f"  {width} x {height}, {count}, {report.seconds:.1f} s")
        self._tell(facts, words)

    def _tell(self, facts: dict[str, Any], words: Text | None) -> None:
        if self.as_json:
            self._lines.print(Text(json.dumps(facts)))
        elif words is not None:
            self._lines.print(words)

    def _show(self) -> None:
        # What was done before takes no time, and must not count towards the speed.
        total = self._images - self.skipped_count
        completed = max(0, self._begun - 1) + self._fraction + self._unreadable
        count = f"{self.done + len(self.failures)}/{total}"
        self._progress.update(self._task, completed=completed, total=total, count=count)
