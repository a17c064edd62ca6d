"""What `segany auto` tells on a terminal."""

import io
import sys
from pathlib import Path

import pytest
from tests.instances_for_tests import make_instances, rectangle

from segany.cli.auto_report import AutoReporter
from segany.core.errors import ImageError
from segany.jobs.pipeline import ImageReport


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


def report(name: str) -> ImageReport:
    return ImageReport(Path(name), make_instances(rectangle(2, 2, 9, 9)[None]), 1.25, {"coco": [Path("out/a.json")]})


def test_bar_shows_image_count_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal(monkeypatch)
    with AutoReporter(4, as_json=False) as reporter:
        reporter.skipped(Path("0.png"))
        reporter.started(Path("1.png"))
        reporter.progressed(5, 10)
        reporter.finished(report("1.png"))
        reporter.failed(Path("2.png"), ImageError("2.png is empty"))
        reporter.started(Path("3.png"))
        reporter.progressed(1, 10)
    assert "3.png" in terminal.getvalue()
    assert "2/3" in terminal.getvalue()  # what was done before does not count
    assert "left:" in terminal.getvalue()
    assert "1.png  40 x 30, 1 mask, 1.2 s" in capsys.readouterr().out  # which is no terminal here


def test_bar_moves_steadily(monkeypatch: pytest.MonkeyPatch) -> None:
    open_terminal(monkeypatch)
    seen = []
    with AutoReporter(3, as_json=True) as reporter:
        task = reporter._progress.tasks[0]
        for name in ("1.png", "2.png", "3.png"):
            reporter.started(Path(name))
            seen.append(task.completed)
            reporter.progressed(5, 10)
            seen.append(task.completed)
            if name == "2.png":  # written while the second is in the model
                reporter.finished(report("1.png"))
                seen.append(task.completed)
    assert seen == [0, 0.5, 1, 1.5, 1.5, 2, 2.5]


def test_nothing_on_a_stderr_that_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with AutoReporter(1, as_json=True) as reporter:
        reporter.started(Path("1.png"))
        reporter.progressed(5, 10)
    assert capsys.readouterr() == ("", "")
