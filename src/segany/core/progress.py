"""How long work reports its progress, and how it is canceled: one mechanism for the library, the CLI and servers.

Long work takes `progress`, a function that is called with a `ProgressEvent` at least once a unit of work: a batch of
points, a frame, an image, a megabyte. Whatever that function raises ends the work, which leaves nothing half-written.
`Cancellation` is the usual reason.

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
    """How far some work is.

    Attributes:
        task: what is being done, for people: "mobile_sam.pt", "automatic masks".
        done: units that are done.
        total: units in all; None where that is not known.
        unit: what is counted: "bytes", "points", "frames", "images", "steps"; empty for a message without a count.
    """

    task: str
    done: int
    total: int | None
    unit: str


ProgressCallback: TypeAlias = Callable[[ProgressEvent], None]


def report(progress: ProgressCallback | None, task: str, done: int, total: int | None, unit: str) -> None:
    """Call `progress`, if there is one."""
    if progress is not None:
        progress(ProgressEvent(task, done, total, unit))


class Cancellation:
    """A request, which any thread may make, that some work end soon."""

    def __init__(self) -> None:
        self._canceled = threading.Event()

    def cancel(self) -> None:
        """Ask for it. Doing it again does nothing."""
        self._canceled.set()

    @property
    def is_canceled(self) -> bool:
        """Whether it was asked for."""
        return self._canceled.is_set()

    def check(self) -> None:
        """Raise `CanceledError` where it was asked for."""
        if self.is_canceled:
            raise CanceledError("The work was canceled.")

    def watch(self, progress: ProgressCallback | None = None) -> ProgressCallback:
        """A `ProgressCallback` that ends the work once it is canceled, and else hands events on to `progress`."""

        def watched(event: ProgressEvent) -> None:
            self.check()
            if progress is not None:
                progress(event)

        return watched
