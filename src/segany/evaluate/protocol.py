"""What a protocol is: a way to measure images or videos one by one, and what a dataset's numbers are made of."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, TypeAlias

from segany.core.progress import ProgressCallback

Record: TypeAlias = dict[str, Any]
"""What was measured of one object, or of one image as a whole: JSON values."""

Numbers: TypeAlias = dict[str, float | int | None]
"""What was measured of a dataset; None where there was nothing to measure."""


class Protocol(abc.ABC):
    """One way to measure.

    Attributes:
        name: what files and the command line call it.
        version: goes up when the same settings give other numbers, so that earlier results are not taken over.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def settings(self) -> dict[str, Any]:
        """All that its numbers depend on besides model and data; JSON values."""
        return {"version": self.version, **asdict(self)}  # type: ignore[call-overload]

    @abc.abstractmethod
    def measure(self, subject: Any, progress: ProgressCallback | None = None) -> list[Record]:
        """Measure one image or video."""

    @abc.abstractmethod
    def summarize(self, records: Sequence[Record]) -> Numbers:
        """The numbers of a dataset, from the records of all its images or videos."""

    def worst(self, record: Record) -> float | None:  # noqa: ARG002
        """How good one object is, for the pictures of failures; None where the protocol has none."""
        return None
