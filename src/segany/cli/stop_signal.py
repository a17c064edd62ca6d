"""Ctrl-C that lets the work in hand be finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Turns the first Ctrl-C into a flag, and the next one into the usual `KeyboardInterrupt`.

    Use it in a `with` block in the main thread; in other threads, which get no signals, it does nothing.

    Attributes:
        is_set: whether there was a Ctrl-C.
    """

    def __init__(self) -> None:
        """Listen from the `with` block on."""
        self.is_set = False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
