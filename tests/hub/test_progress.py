from __future__ import annotations

import io
import sys

import pytest

from segany.hub import terminal_progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Put a terminal in place of stderr. No fixture: pytest takes stderr back before the test begins."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_bars_are_drawn_on_a_terminal(monkeypatch):
    screen = watch(monkeypatch)
    with terminal_progress() as progress:
        progress("tiny.pt", 0, None)
        progress("tiny.pt", 500_000, 1_000_000)
        progress("tiny.pt", 1_000_000, 1_000_000)
    assert "tiny.pt" in screen.getvalue()
    assert "1.0/1.0 MB" in screen.getvalue()


def test_nothing_is_drawn_before_the_first_report(monkeypatch):
    screen = watch(monkeypatch)
    with terminal_progress():
        pass
    assert screen.getvalue() == ""


def test_nothing_is_drawn_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with terminal_progress() as progress:
        progress("tiny.pt", 1, 2)
    assert log.getvalue() == ""
