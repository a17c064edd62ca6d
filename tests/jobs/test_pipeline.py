"""`segany.jobs.run` with a task that doubles numbers: what is skipped, what fails, what ends the run."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from segany.core.errors import CanceledError, CheckpointError, ImageError, OutputError
from segany.core.files import write_file
from segany.core.progress import Cancellation, ProgressCallback, ProgressEvent, report
from segany.hub.model_ref import ModelRef
from segany.jobs import DoneRecords, ItemResult, Task, Written, run
from segany.jobs.automatic import AutomaticTask, ImageItem
from segany.predict.automatic import AutomaticConfig


@dataclass(frozen=True)
class Doubling(Task[str, int, int, int]):
    """Doubles the numbers in files, and writes them beside those in two forms.

    Attributes:
        out: folder of the results.
        parts: the forms.
        hooks: what is done first in "open", "read", "process" and "write", with the item.
        calls: what was called.
    """

    out: Path
    parts: tuple[str, ...] = ("plain", "hex")
    factor: int = 2
    hooks: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def _call(self, what: str, item: Any = None) -> None:
        self.calls.append((what, item))
        self.hooks.get(what, lambda _: None)(item)

    def settings(self) -> Mapping[str, Any]:
        return {part: {"factor": self.factor} for part in self.parts}

    def name(self, item: str) -> str:
        return Path(item).stem

    def content_id(self, item: str) -> str:
        return Path(item).read_text()

    def is_there(self, part: str, value: Any) -> bool:
        return (self.out / value).exists()

    def open(self, progress: ProgressCallback | None) -> int:
        self._call("open")
        report(progress, "weights", 1, 2, "bytes")
        return self.factor

    def read(self, item: str) -> int:
        self._call("read", self.name(item))
        return int(Path(item).read_text())

    def process(self, model: int, value: int, parts: Sequence[str], progress: ProgressCallback | None) -> int:
        self._call("process", value)
        report(progress, "doubling", 1, 1, "points")
        return model * value

    def write(self, item: str, output: int) -> Written:
        self._call("write", self.name(item))
        values = {}
        for part in self.parts:
            values[part] = f"{self.name(item)}.{part}"
            write_file(self.out / values[part], (f"{output:x}" if part == "hex" else f"{output}").encode())
        return Written(values, {"output": output})


@pytest.fixture
def items(tmp_path: Path) -> list[str]:
    """Files with the numbers 1, 2 and 3."""
    paths = [tmp_path / f"{number}.txt" for number in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        path.write_text(str(number))
    return [str(path) for path in paths]


@pytest.fixture
def records(tmp_path: Path) -> DoneRecords:
    return DoneRecords(tmp_path / "out" / ".segany")


def statuses(results: Sequence[ItemResult[str]]) -> list[tuple[str, str]]:
    return sorted((Path(result.item).stem, result.status) for result in results)


ALL_DONE = [("1", "done"), ("2", "done"), ("3", "done")]
ALL_SKIPPED = [("1", "skipped"), ("2", "skipped"), ("3", "skipped")]


def failing(name: Any, error: BaseException) -> Callable[[Any], None]:
    def fail(item: Any) -> None:
        if item == name:
            raise error

    return fail


def test_all_items_are_done_and_the_next_time_skipped(tmp_path: Path, items: list[str], records: DoneRecords) -> None:
    task = Doubling(tmp_path / "out")
    results = run(task, items, records)
    assert statuses(results) == ALL_DONE
    assert [result.facts["output"] for result in results] == [2, 4, 6]
    assert (tmp_path / "out" / "3.hex").read_text() == "6"
    task.calls.clear()
    again = run(task, items, records)
    assert statuses(again) == ALL_SKIPPED
    assert [result.values for result in again] == [result.values for result in results]
    assert task.calls == []  # nothing is opened or read
    assert statuses(run(task, items, records, overwrite=True)) == ALL_DONE


def test_what_changed_is_done_again(tmp_path: Path, items: list[str], records: DoneRecords) -> None:
    task = Doubling(tmp_path / "out")
    run(task, items, records)
    (tmp_path / "out" / "1.hex").unlink()
    Path(items[1]).write_text("5")
    assert statuses(run(task, items, records)) == [("1", "done"), ("2", "done"), ("3", "skipped")]
    assert statuses(run(Doubling(tmp_path / "out", factor=3), items, records)) == ALL_DONE


def test_parts_of_several_runs_add_up(tmp_path: Path, items: list[str], records: DoneRecords) -> None:
    for parts, expected in ((("plain",), ALL_DONE), (("hex",), ALL_DONE), (("plain", "hex"), ALL_SKIPPED)):
        assert statuses(run(Doubling(tmp_path / "out", parts), items, records)) == expected


def test_without_records_nothing_is_skipped(tmp_path: Path, items: list[str]) -> None:
    for _ in range(2):
        assert statuses(run(Doubling(tmp_path / "out"), items)) == ALL_DONE
    assert not (tmp_path / "out" / ".segany").exists()


@pytest.mark.parametrize("where", ["read", "process", "write"])
def test_an_item_fails_alone(tmp_path: Path, items: list[str], records: DoneRecords, where: str) -> None:
    error = ImageError("the second is bad")
    task = Doubling(tmp_path / "out", hooks={where: failing(2 if where == "process" else "2", error)})
    results = run(task, items, records)
    assert statuses(results) == [("1", "done"), ("2", "failed"), ("3", "done")]
    assert [result.error for result in results if result.status == "failed"] == [error]
    assert statuses(run(Doubling(tmp_path / "out"), items, records)) == [
        ("1", "skipped"), ("2", "done"), ("3", "skipped"),
    ]  # fmt: skip


def test_a_failed_write_is_that_of_its_item_while_the_next_is_processed(tmp_path: Path, items: list[str]) -> None:
    has_failed = threading.Event()

    def fail(name: str) -> None:
        if name == "1":
            has_failed.set()
            raise OutputError("1.plain is one of the inputs")

    def wait(value: int) -> None:
        if value == 2:
            assert has_failed.wait(10)
            time.sleep(0.05)

    results = run(Doubling(tmp_path / "out", hooks={"write": fail, "process": wait}), items)
    assert statuses(results) == [("1", "failed"), ("2", "done"), ("3", "done")]
    assert Path(results[0].item).stem == "1"  # it is told of while 2 is processed


def test_a_full_disk_ends_the_run(
    tmp_path: Path, items: list[str], records: DoneRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"1\.plain could not be written: there is no space left"):
        run(Doubling(tmp_path / "out"), items, records)


def test_a_folder_where_nothing_can_be_written_ends_the_run(
    tmp_path: Path, items: list[str], records: DoneRecords
) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match="could not be written"):
        run(Doubling(tmp_path / "out"), items, records)


def test_stopping_at_a_failure_comes_after_the_results_before_it(tmp_path: Path, items: list[str]) -> None:
    told: list[ItemResult[str]] = []
    task = Doubling(tmp_path / "out", hooks={"read": failing("2", ImageError("bad"))})
    with pytest.raises(ImageError, match="bad"):
        run(task, items, stop_at_failure=True, on_result=told.append)
    assert statuses(told) == [("1", "done")]


def test_errors_of_the_model_and_other_errors_end_the_run(tmp_path: Path, items: list[str]) -> None:
    for where, item, error in (
        ("open", None, CheckpointError("the weights are truncated")),
        ("process", 2, ZeroDivisionError("a bug")),
    ):
        with pytest.raises(type(error)):
            run(Doubling(tmp_path / "out", hooks={where: failing(item, error)}), items)


def test_canceling_keeps_what_is_finished(tmp_path: Path, items: list[str], records: DoneRecords) -> None:
    cancellation, told = Cancellation(), []

    def cancel_in_2(event: ProgressEvent) -> None:
        told.append(event)
        if event.task == "2":
            while not (tmp_path / "out" / ".segany" / "1.json").exists():
                time.sleep(0.01)
            cancellation.cancel()

    with pytest.raises(CanceledError):
        run(Doubling(tmp_path / "out"), items, records, progress=cancellation.watch(cancel_in_2))
    assert told == [
        ProgressEvent("1", 0, 3, "items"),
        ProgressEvent("weights", 1, 2, "bytes"),
        ProgressEvent("doubling", 1, 1, "points"),
        ProgressEvent("2", 1, 3, "items"),
    ]
    assert statuses(run(Doubling(tmp_path / "out"), items, records))[0] == ("1", "skipped")


def test_an_interrupt_in_the_model_leaves_no_half_of_a_file(
    tmp_path: Path, items: list[str], records: DoneRecords
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Doubling(tmp_path / "out", hooks={"process": failing(2, KeyboardInterrupt())}), items, records)
    assert not list((tmp_path / "out").glob("**/*.tmp"))
    assert not list((tmp_path / "out").glob("2*"))


def test_reading_and_writing_go_on_while_the_model_works(tmp_path: Path, items: list[str]) -> None:
    second_is_read, first_is_written = threading.Event(), threading.Event()
    hooks = {
        "read": lambda name: second_is_read.set() if name == "2" else None,
        "process": lambda value: {1: second_is_read, 2: first_is_written}.get(value, first_is_written).wait(10),
        "write": lambda name: first_is_written.set(),
    }
    assert statuses(run(Doubling(tmp_path / "out", hooks=hooks), items)) == ALL_DONE
    assert second_is_read.is_set()


def test_few_items_are_in_memory_at_once(tmp_path: Path) -> None:
    items = [str(tmp_path / f"{number}.txt") for number in range(20)]
    for number, path in enumerate(items):
        Path(path).write_text(str(number))
    task = Doubling(tmp_path / "out")

    def check(value: int) -> None:
        assert sum(what == "read" for what, _ in task.calls) <= value + 4

    run(Doubling(task.out, hooks={"process": check}, calls=task.calls), items)


def test_tasks_and_items_can_be_pickled(tmp_path: Path) -> None:
    task = AutomaticTask(ModelRef("mobile_sam", "onnx"), tmp_path, AutomaticConfig(points_per_side=8))
    item = ImageItem(Path("photo.jpg"), "photo")
    assert pickle.loads(pickle.dumps((task, item))) == (task, item)
