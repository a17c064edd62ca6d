"""The bar of long work."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def work_bar(speed_seconds: float = 30.0) -> Progress:
    """A bar with the time left on stderr, only where that is a terminal. Its tasks have a field `count`.

    Args:
        speed_seconds: how much of the past the time left is reckoned from.
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
