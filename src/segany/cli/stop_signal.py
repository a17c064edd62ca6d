"""Handling of Ctrl-C that finishes the current unit of work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

from segany.core.progress import Cancellation


class StopSignal:
    """Turns the first Ctrl-C into a cancellation, and the next one into the usual `KeyboardInterrupt`.

    Use it in a `with` block in the main thread; in other threads, which receive no signals, it does nothing.

    Attributes:
        cancellation: canceled by the signal.
        is_set: whether there was a signal.
        number: of the first one; None before.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGINT,)) -> None:
        """Listen to these signals inside the `with` block."""
        self.number: int | None = None
        self.cancellation = Cancellation()
        self._signals = signals
        self._before: dict[int, Any] = {}

    @property
    def is_set(self) -> bool:
        return self.number is not None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number
        self.cancellation.cancel()
