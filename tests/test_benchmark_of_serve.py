"""What the benchmark of `segany serve` concludes from times; and that saving at once is counted, with a real server."""

from __future__ import annotations

from dataclasses import asdict

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks.serve_rows import HOVER, SAVE, Row, markdown
from benchmarks.setting import Setting

SETTING = Setting("2026-01-01T00:00:00+00:00", "abc", "a CPU", 2, 0.1)


@pytest.mark.parametrize(
    ("p50", "p95", "reached"),
    [(50, 100, "aim"), (51, 100, "target"), (50, 160, "target"), (81, 90, "**missed**"), (10, 161, "**missed**")],
)
def test_both_percentiles_count_where_both_are_limited(p50: float, p95: float, reached: str) -> None:
    assert HOVER.verdict(p50, p95) == reached


def test_one_limit_is_for_the_95th_percentile() -> None:
    assert Row.of("", SAVE, range(101)).p50 == 50
    assert Row.of("", SAVE, range(101)).p95 == 95
    assert SAVE.verdict(1, 150) == "aim"
    assert SAVE.verdict(1, 501) == "**missed**"


def test_page_shows_what_was_missed_and_how_busy_the_machine_was() -> None:
    rows = [asdict(Row.of("hover", HOVER, [20.0, 400.0], "a note")), asdict(Row.of("free", None, [3.0]))]
    busy = Setting(**{**asdict(SETTING), "load": 3.4})
    page = markdown({"hover": {"setting": asdict(busy), "rows": rows}})
    assert "| hover | 80 / 160 | 50 / 100 | 210 | 381 | 2 | **missed** | a note |" in page
    assert "| free |  |  | 3 | 3 | 1 |  |  |" in page
    assert "| hover | 3.4 (busy) | a CPU, 2 cores |" in page
