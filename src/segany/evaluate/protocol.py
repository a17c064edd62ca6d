"""The base class of evaluation protocols: records of single images or videos, and their summary for a dataset."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, TypeAlias

from segany.core.progress import ProgressCallback

Record: TypeAlias = dict[str, Any]
"""The measurements of one object, or of one whole image, as JSON values."""

Numbers: TypeAlias = dict[str, float | int | None]
"""The metrics of a dataset by name; None if there was nothing to measure."""


class Protocol(abc.ABC):
    """An evaluation protocol. A subclass is a frozen dataclass, whose fields are its settings.

    Attributes:
        name: name of the protocol in files and on the command line.
        version: is incremented when the same settings give other numbers, so that earlier records are not reused.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def settings(self) -> dict[str, Any]:
        """The version and the fields of the protocol, on which its numbers depend, as JSON values."""
        return {"version": self.version, **asdict(self)}  # type: ignore[call-overload]

    @abc.abstractmethod
    def measure(self, subject: Any, progress: ProgressCallback | None = None) -> list[Record]:
        """Measure one image or video."""

    @abc.abstractmethod
    def summarize(self, records: Sequence[Record]) -> Numbers:
        """Compute the metrics of a dataset from the records of all its images or videos."""

    def worst(self, record: Record) -> float | None:  # noqa: ARG002
        """The score of one object, by which the pictures of failures are chosen; None for protocols without it."""
        return None
