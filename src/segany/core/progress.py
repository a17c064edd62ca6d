"""Progress reports and cancellation of long operations, for the library, the CLI and servers.

Long operations take `progress`, a callback that is called with a `ProgressEvent` at least once per unit of work: a
batch of points, a frame, an image, a megabyte. An exception raised by the callback ends the operation and leaves no
partial files. `Cancellation` uses this.

    cancellation = Cancellation()
    generator.generate("photo.jpg", progress=cancellation.watch(print))  # raises CanceledError
    cancellation.cancel()  # in another thread
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from segany.core.errors import CanceledError


@dataclass(frozen=True)
class ProgressEvent:
    """The progress of an operation.

    Attributes:
        task: name of the operation to display: "mobile_sam.pt", "automatic masks".
        done: completed units.
        total: total units; None if unknown.
        unit: "bytes", "points", "frames", "images" or "steps"; empty for a message without a count.
    """

    task: str
    done: int
    total: int | None
    unit: str


ProgressCallback: TypeAlias = Callable[[ProgressEvent], None]


def report(progress: ProgressCallback | None, task: str, done: int, total: int | None, unit: str) -> None:
    """Call `progress` with an event, unless it is None."""
    if progress is not None:
        progress(ProgressEvent(task, done, total, unit))


class Cancellation:
    """A thread-safe flag that cancels an operation."""

    def __init__(self) -> None:
        self._canceled = threading.Event()

    def cancel(self) -> None:
        """Set the flag. Calling it again has no effect."""
        self._canceled.set()

    @property
    def is_canceled(self) -> bool:
        """Whether `cancel` was called."""
        return self._canceled.is_set()

    def check(self) -> None:
        """Raise `CanceledError` if `cancel` was called."""
        if self.is_canceled:
            raise CanceledError("The work was canceled.")

    def watch(self, progress: ProgressCallback | None = None) -> ProgressCallback:
        """Return a callback that raises `CanceledError` once canceled, and otherwise passes events to `progress`."""

        def watched(event: ProgressEvent) -> None:
            self.check()
            if progress is not None:
                progress(event)

        return watched
