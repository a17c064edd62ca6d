"""A pipeline that runs a task over many items. Reading, processing and writing of different items overlap."""

from __future__ import annotations

import abc
import contextlib
import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from segany.core.errors import CanceledError, OutOfMemoryError, SeganyError
from segany.core.progress import ProgressCallback, ProgressEvent, report
from segany.jobs.records import DoneRecords

_logger = logging.getLogger(__name__)

READ_AHEAD = 2
"""Number of items that are read ahead, and of results that wait to be written. It bounds the memory."""

_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
"""What PyTorch's `RuntimeError`s for too little memory say."""

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)

ItemT = TypeVar("ItemT")
InputT = TypeVar("InputT")
ModelT = TypeVar("ModelT")
OutputT = TypeVar("OutputT")

Status: TypeAlias = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Written:
    """The result of writing an item.

    Attributes:
        values: a JSON value for each part, which is recorded, such as names of files or numbers.
        facts: JSON values for `on_result`, which are not recorded.
    """

    values: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ItemResult(Generic[ItemT]):
    """The result of an item.

    Attributes:
        item: the item.
        status: "done" in this run, "skipped" because an earlier run did it, or "failed".
        values: the values of `Written`, including those of parts that earlier runs did. Empty if the item failed.
        facts: the facts of `Written`. Empty unless the status is "done".
        seconds: duration of processing, without reading and writing.
        error: the error of a failed item.
    """

    item: ItemT
    status: Status
    values: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: SeganyError | None = None


class Task(abc.ABC, Generic[ItemT, InputT, ModelT, OutputT]):
    """The processing of each of many items: reading, processing and writing.

    A subclass is a frozen dataclass of small picklable values, and so are its items. `open` loads the model.

    Attributes:
        item_errors: errors of `read`, `process` and `write` that fail only the item. Other errors end the run.
    """

    item_errors: ClassVar[tuple[type[SeganyError], ...]] = (SeganyError,)

    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The parts of the result of every item, each with the settings that it depends on, as JSON values."""

    @abc.abstractmethod
    def name(self, item: ItemT) -> str:
        """The unique name of an item, for records and messages."""

    def content_id(self, item: ItemT) -> str:  # noqa: ARG002
        """A digest of the item's content. When it changes, the item is done again. Empty to ignore the content."""
        return ""

    def is_there(self, part: str, value: Any) -> bool:  # noqa: ARG002
        """Whether the result of a part that an earlier run recorded still exists."""
        return True

    @abc.abstractmethod
    def open(self, progress: ProgressCallback | None) -> ModelT:
        """Load the model. It is called once, when the first item needs the model."""

    @abc.abstractmethod
    def read(self, item: ItemT) -> InputT:
        """Read an item. It is called in a reader thread."""

    @abc.abstractmethod
    def process(self, model: ModelT, value: InputT, parts: Sequence[str], progress: ProgressCallback | None) -> OutputT:
        """Compute some parts of the result from the value that `read` returned."""

    @abc.abstractmethod
    def write(self, item: ItemT, output: OutputT) -> Written:
        """Write the output of `process`. It is called in a writer thread."""


def run(
    task: Task[ItemT, InputT, ModelT, OutputT],
    items: Sequence[ItemT],
    records: DoneRecords | None = None,
    *,
    overwrite: bool = False,
    stop_at_failure: bool = False,
    progress: ProgressCallback | None = None,
    on_result: Callable[[ItemResult[ItemT]], None] | None = None,
    model: ModelT | None = None,
) -> list[ItemResult[ItemT]]:
    """Run a task over items.

    An error of one item fails only that item. When the run is canceled, by Ctrl-C or by an exception of `progress`,
    finished items are recorded, and the next run with the same records resumes after them.

    Args:
        task: the task.
        items: items with unique names.
        records: records of finished items, which are skipped; items of this run are added. None skips and records
            nothing.
        overwrite: do finished items again.
        stop_at_failure: raise the error of the first failed item, after the results of the items before it.
        progress: called with the current item, with the unit "items", with the progress of loading the model, and with
            the progress inside an item.
        on_result: called with the result of each item, in the thread that calls `run`.
        model: what `task.open` returned, for runs that share it; None to call `task.open`.

    Returns:
        The results, in the order in which the items ended.

    Raises:
        OutputError: the disk is full, or nothing can be written at all.
        SeganyError: the model cannot be loaded, or an error is not one of `task.item_errors`.
    """
    return _Run(task, records, overwrite, stop_at_failure, progress, on_result).over(items, model)


@dataclass(frozen=True)
class _Pending(Generic[ItemT, InputT]):
    """An item that is read. Its value is None if all its parts are done."""

    item: ItemT
    content_id: str
    done: Mapping[str, Any]
    missing: tuple[str, ...]
    value: InputT | None


class _FatalWrite(Exception):  # noqa: N818 - carries an error out of the processing of another item
    """A write error that ends the run."""

    def __init__(self, error: SeganyError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Convert out-of-memory errors of NumPy, Pillow and PyTorch to `OutOfMemoryError`, which fails only the item."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, SeganyError):
            raise
        text = str(error)
        if isinstance(error, RuntimeError) and not any(words in text for words in _NO_MEMORY):
            raise
        reason = f" ({text.splitlines()[0]})" if text else ""
        raise OutOfMemoryError(f"There is not enough memory{reason}. Use a smaller image or fewer prompts.") from error


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

    def over(self, items: Sequence[ItemT], model: ModelT | None) -> list[ItemResult[ItemT]]:
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
                if len(done) < len(found):
                    gone = ", ".join(sorted(set(found) - set(done)))
                    path = self.records.path_of(task.name(item))
                    _logger.warning("What %s records is gone or damaged, so it is made again: %s.", path, gone)
        missing = tuple(part for part in self.settings if part not in done)
        with _memory_errors():
            return _Pending(item, content_id, done, missing, task.read(item) if missing else None)

    def _process(self, model: ModelT, pending: _Pending[ItemT, InputT], value: InputT) -> None:
        started = perf_counter()
        try:
            with _memory_errors():
                output = self.task.process(model, value, pending.missing, self._report_item)
        except CanceledError:
            raise
        except self.task.item_errors as error:
            self._fail(pending.item, error)
            return
        seconds = perf_counter() - started
        self.writing.append((pending.item, self.writer.submit(self._write, pending, output, seconds)))

    def _report_item(self, event: ProgressEvent) -> None:
        """Forward the progress of an item, and deliver the results of items that have been written meanwhile."""
        if self.progress is not None:
            self.progress(event)
        self._collect(at_most_waiting=READ_AHEAD)

    def _write(self, pending: _Pending[ItemT, InputT], output: OutputT, seconds: float) -> ItemResult[ItemT]:
        with _memory_errors():
            written = self.task.write(pending.item, output)
        if self.records is not None:
            settings = {part: self.settings[part] for part in written.values}
            self.records.write(self.task.name(pending.item), pending.content_id, settings, written.values)
        return ItemResult(pending.item, "done", {**pending.done, **written.values}, written.facts, seconds)

    def _collect(self, at_most_waiting: int) -> None:
        """Deliver the results of written items, and wait for the oldest until at most `at_most_waiting` are pending."""
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
        """Whether no further writes can succeed: the disk is full, or not even a record can be written."""
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
