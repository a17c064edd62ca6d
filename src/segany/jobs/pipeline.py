"""Running a task over many items: one is read and another written while a third is in the model."""

from __future__ import annotations

import abc
import errno
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from segany.core.errors import CanceledError, SeganyError
from segany.core.progress import ProgressCallback, ProgressEvent, report
from segany.jobs.records import DoneRecords

READ_AHEAD = 2
"""Items that are read before the model gets to them, and results that wait to be written: what bounds the memory."""

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)

ItemT = TypeVar("ItemT")
InputT = TypeVar("InputT")
ModelT = TypeVar("ModelT")
OutputT = TypeVar("OutputT")

Status: TypeAlias = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Written:
    """What was made of an item.

    Attributes:
        values: of each part, a JSON value: what is recorded, such as the names of files, or numbers.
        facts: JSON values for whoever watches, which are not recorded.
    """

    values: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ItemResult(Generic[ItemT]):
    """How an item ended.

    Attributes:
        item: the item.
        status: "done" now, "skipped" because it was done before, or "failed".
        values: of each part, as of `Written`; those of earlier runs too. Empty where it failed.
        facts: as of `Written`; empty unless it is done now.
        seconds: it took to process, without reading and writing.
        error: why it failed.
    """

    item: ItemT
    status: Status
    values: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: SeganyError | None = None


class Task(abc.ABC, Generic[ItemT, InputT, ModelT, OutputT]):
    """What is done with each of many items.

    A subclass is a frozen dataclass of small values that can be pickled, as are its items: `open` loads what is large.

    Attributes:
        item_errors: raised by `read`, `process` or `write`, these fail the item alone; others end the run.
    """

    item_errors: ClassVar[tuple[type[SeganyError], ...]] = (SeganyError,)

    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The parts that are made of every item, and what each depends on besides the item's content; JSON values."""

    @abc.abstractmethod
    def name(self, item: ItemT) -> str:
        """The name of an item, different from those of all others: for records and for people."""

    def content_id(self, item: ItemT) -> str:  # noqa: ARG002
        """A digest of what the item holds, where results are to be made anew when that changes."""
        return ""

    def is_there(self, part: str, value: Any) -> bool:  # noqa: ARG002
        """Whether what an earlier run recorded of a part is still there."""
        return True

    @abc.abstractmethod
    def open(self, progress: ProgressCallback | None) -> ModelT:
        """Load what `process` needs. Called once, when the first item needs it."""

    @abc.abstractmethod
    def read(self, item: ItemT) -> InputT:
        """Read an item, in a thread beside the model's."""

    @abc.abstractmethod
    def process(self, model: ModelT, value: InputT, parts: Sequence[str], progress: ProgressCallback | None) -> OutputT:
        """Compute these parts of what `read` returned."""

    @abc.abstractmethod
    def write(self, item: ItemT, output: OutputT) -> Written:
        """Write what `process` returned, in a thread beside the model's."""


def run(
    task: Task[ItemT, InputT, ModelT, OutputT],
    items: Sequence[ItemT],
    records: DoneRecords | None = None,
    *,
    overwrite: bool = False,
    stop_at_failure: bool = False,
    progress: ProgressCallback | None = None,
    on_result: Callable[[ItemResult[ItemT]], None] | None = None,
) -> list[ItemResult[ItemT]]:
    """Do a task with all items.

    What is wrong with one item fails that item alone. When the run is canceled, by Ctrl-C or by what `progress`
    raises, finished items are recorded, and the next run with the same records goes on from there.

    Args:
        task: what to do.
        items: with different names.
        records: of what is done already, to be skipped, and of what is done now. None skips and records nothing.
        overwrite: do anew what is done already.
        stop_at_failure: raise the error of the first item that fails, after the results of those before it.
        progress: told which item is in hand ("items"), what loading the model takes, and how far the item is.
        on_result: told how each item ended, in the thread that calls `run`.

    Returns:
        How the items ended, in the order in which they did.

    Raises:
        OutputError: the disk is full, or nothing can be written at all.
        SeganyError: the model cannot be loaded, or another error that is not one of `task.item_errors`.
    """
    return _Run(task, records, overwrite, stop_at_failure, progress, on_result).over(items)


@dataclass(frozen=True)
class _Pending(Generic[ItemT, InputT]):
    """An item that is read: its input is None where all parts are done already."""

    item: ItemT
    content_id: str
    done: Mapping[str, Any]
    missing: tuple[str, ...]
    value: InputT | None


class _FatalWrite(Exception):  # noqa: N818 - carries an error out of the processing of another item
    """An error of writing that ends the run."""

    def __init__(self, error: SeganyError) -> None:
        super().__init__(str(error))
        self.error = error


class _Run(Generic[ItemT, InputT, ModelT, OutputT]):
    """One call of `run`."""

    def __init__(
        self,
        task: Task[ItemT, InputT, ModelT, OutputT],
        records: DoneRecords | None,
        overwrite: bool,
        stop_at_failure: bool,
        progress: ProgressCallback | None,
        on_result: Callable[[ItemResult[ItemT]], None] | None,
    ) -> None:
        self.task, self.records = task, records
        self.overwrite, self.stop_at_failure = overwrite, stop_at_failure
        self.progress, self.on_result = progress, on_result
        self.settings = dict(task.settings())
        self.results: list[ItemResult[ItemT]] = []
        self.reader, self.writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        self.writing: deque[tuple[ItemT, Future[ItemResult[ItemT]]]] = deque()

    def over(self, items: Sequence[ItemT]) -> list[ItemResult[ItemT]]:
        model: ModelT | None = None
        try:
            for number, (item, reading) in enumerate(self._read_ahead(items)):
                report(self.progress, self.task.name(item), number, len(items), "items")
                try:
                    pending = reading.result()
                except self.task.item_errors as error:
                    self._fail(item, error)
                    continue
                if pending.value is None:
                    self._end(ItemResult(item, "skipped", pending.done))
                    continue
                if model is None:
                    model = self.task.open(self.progress)
                self._process(model, pending, pending.value)
                self._collect(at_most_waiting=READ_AHEAD - 1)
            self._collect(at_most_waiting=0)
        except _FatalWrite as fatal:
            raise fatal.error from fatal.error.__cause__
        finally:
            for thread in (self.reader, self.writer):
                thread.shutdown(cancel_futures=True)
        return self.results

    def _read_ahead(self, items: Sequence[ItemT]) -> Iterator[tuple[ItemT, Future[_Pending[ItemT, InputT]]]]:
        ahead: deque[tuple[ItemT, Future[_Pending[ItemT, InputT]]]] = deque()
        for item in items:
            ahead.append((item, self.reader.submit(self._read, item)))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def _read(self, item: ItemT) -> _Pending[ItemT, InputT]:
        task, content_id = self.task, ""
        done: dict[str, Any] = {}
        if self.records is not None:
            content_id = task.content_id(item)
            if not self.overwrite:
                found = self.records.find(task.name(item), content_id, self.settings)
                done = {part: value for part, value in found.items() if task.is_there(part, value)}
        missing = tuple(part for part in self.settings if part not in done)
        return _Pending(item, content_id, done, missing, task.read(item) if missing else None)

    def _process(self, model: ModelT, pending: _Pending[ItemT, InputT], value: InputT) -> None:
        started = perf_counter()
        try:
            output = self.task.process(model, value, pending.missing, self._tell)
        except CanceledError:
            raise
        except self.task.item_errors as error:
            self._fail(pending.item, error)
            return
        seconds = perf_counter() - started
        self.writing.append((pending.item, self.writer.submit(self._write, pending, output, seconds)))

    def _tell(self, event: ProgressEvent) -> None:
        """Hand on how far an item is, and meanwhile tell of those that are written."""
        if self.progress is not None:
            self.progress(event)
        self._collect(at_most_waiting=READ_AHEAD)

    def _write(self, pending: _Pending[ItemT, InputT], output: OutputT, seconds: float) -> ItemResult[ItemT]:
        written = self.task.write(pending.item, output)
        if self.records is not None:
            settings = {part: self.settings[part] for part in written.values}
            self.records.write(self.task.name(pending.item), pending.content_id, settings, written.values)
        return ItemResult(pending.item, "done", {**pending.done, **written.values}, written.facts, seconds)

    def _collect(self, at_most_waiting: int) -> None:
        """Tell of the items that are written, waiting for the oldest ones until few enough are left."""
        while self.writing and (self.writing[0][1].done() or len(self.writing) > at_most_waiting):
            item, writing = self.writing.popleft()
            try:
                result = writing.result()
            except self.task.item_errors as error:
                if self.stop_at_failure or self._is_hopeless(error):
                    raise _FatalWrite(error) from error
                self._fail(item, error)
            else:
                self._end(result)

    def _is_hopeless(self, error: SeganyError) -> bool:
        """Whether nothing more can be written: the disk is full, or even a record is refused."""
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _DISK_IS_FULL:
            return True
        return isinstance(error, OSError) and self.records is not None and not self.records.is_writable()

    def _fail(self, item: ItemT, error: SeganyError) -> None:
        if self.stop_at_failure:
            self._collect(at_most_waiting=0)
            raise error
        self._end(ItemResult(item, "failed", error=error))

    def _end(self, result: ItemResult[ItemT]) -> None:
        self.results.append(result)
        if self.on_result is not None:
            self.on_result(result)
