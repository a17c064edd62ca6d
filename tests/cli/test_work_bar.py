"""What `segany auto` and loading a model show on a terminal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from segany.cli.auto_report import AutoReporter
from segany.cli.work_bar import EventBars, ItemBar
from segany.core.errors import ImageError
from segany.core.progress import ProgressEvent
from segany.jobs import ItemResult
from segany.jobs.automatic import ImageItem


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What goes to stderr from now on, as to a terminal. No fixture: pytest sets stderr after those."""
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def item(name: str) -> ImageItem:
    return ImageItem(Path(name), Path(name).stem)


def shown(terminal: Terminal) -> list[str]:
    """What the bar said, in order, without control sequences and repetitions."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_bar_shows_image_count_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal(monkeypatch)
    with ItemBar("reading", 4) as bar:
        reporter = AutoReporter(bar, as_json=False)
        bar(ProgressEvent("0", 0, 4, "items"))
        reporter(ItemResult(item("0.png"), "skipped"))
        bar(ProgressEvent("1", 1, 4, "items"))
        bar(ProgressEvent("automatic masks", 5, 10, "points"))
        reporter(ItemResult(item("1.png"), "done", {}, {"size_hw": [30, 40], "masks": 1}, 1.25))
        bar(ProgressEvent("2", 2, 4, "items"))
        reporter(ItemResult(item("2.png"), "failed", error=ImageError("2.png is empty")))
        bar(ProgressEvent("3", 3, 4, "items"))
        bar(ProgressEvent("automatic masks", 1, 10, "points"))
    last = shown(terminal)[-1]
    assert last.startswith("3 ")
    assert "2/3" in last  # what was done before does not count
    assert "left:" in last
    assert "1.png  40 x 30, 1 mask, 1.2 s" in capsys.readouterr().out  # which is no terminal here


def test_loading_the_model_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with ItemBar("reading", 1) as bar:
        bar(ProgressEvent("photo", 0, 1, "items"))
        bar(ProgressEvent("mobile_sam.pt", 500_000, 1_000_000, "bytes"))
    assert any("mobile_sam.pt" in line and "0.5/1.0 MB" in line for line in shown(terminal))


def test_a_bar_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with EventBars() as progress:
        progress(ProgressEvent("waiting for another process", 0, None, ""))
        progress(ProgressEvent("tiny.pt", 0, None, "bytes"))
        progress(ProgressEvent("tiny.pt", 1_000_000, 1_000_000, "bytes"))
    assert any("1.0/1.0 MB" in line for line in shown(terminal))


def test_nothing_is_drawn_before_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with EventBars():
        pass
    assert terminal.getvalue() == ""


def test_nothing_on_a_stderr_that_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ItemBar("reading", 1) as bar, EventBars() as progress:
        bar(ProgressEvent("1", 0, 1, "items"))
        progress(ProgressEvent("tiny.pt", 1, 2, "bytes"))
    assert capsys.readouterr() == ("", "")
