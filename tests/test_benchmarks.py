"""The harness of the benchmarks: what it concludes from measurements, not the measurements."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks.agreement import Check, compare, mask_iou
from benchmarks.cases import CASES, Case, Target
from benchmarks.measure import WorkerError, run_worker
from benchmarks.protocol import Job, Report
from benchmarks.rows import Conditions, Row, Side, make_row
from benchmarks.run import run
from benchmarks.setting import Setting
from benchmarks.tables import markdown, read_rows, write_page, write_row

TIMED = CASES["mobile_sam/embed"]
WEIGHED = CASES["mobile_sam/memory"]

PASSED = Check("masks", "mask IoU", 0.9999, 0.999, passed=True)
FAILED = Check("masks", "mask IoU", 0.5, 0.999, passed=False, problem="masks: mask IoU 0.5, limit 0.999")

CONDITIONS = Conditions(
    setting=Setting(date="2030-01-01T00:00:00+00:00", commit="abc", cpu="A | B", cores=2, load=0.1),
    image="coffee.png",
    device="cpu",
    warmup=2,
    repeats=3,
)


def reports(seconds: list[float], megabytes: int = 100) -> list[Report]:
    return [
        Report([s, s, 9.0], s + 2, megabytes * 10**6, python="3.11", threads=2, packages={"torch": "2.9", "peer": "1"})
        for s in seconds
    ]


def row(
    case: Case = TIMED,
    ours: list[Report] | None = None,
    peer: list[Report] | None = None,
    checks: list[list[Check]] | None = None,
) -> Row:
    return make_row(
        case,
        Side.of(case, ours or reports([1.0, 1.25, 2.0])),
        Side.of(case, peer or reports([3.0, 5.0, 4.0], megabytes=200)),
        checks or [[PASSED]] * 3,
        CONDITIONS,
    )


def masks(*filled_rows: int) -> np.ndarray:
    array = np.zeros((len(filled_rows), 1000, 4), dtype=bool)
    for mask, rows in zip(array, filled_rows, strict=True):
        mask[:rows] = True
    return array


def test_mask_iou_counts_pixels() -> None:
    assert mask_iou(masks(4)[0], masks(2)[0]) == 0.5
    assert mask_iou(masks(0)[0], masks(0)[0]) == 1.0


def test_compare_passes_equal_outputs() -> None:
    outputs = {"masks": masks(500, 1000), "scores": np.array([0.5, 1.0], dtype=np.float32)}
    assert all(check.passed for check in compare(outputs, outputs))


def test_compare_judges_the_worst_mask() -> None:
    (check,) = compare({"masks": masks(1000, 500)}, {"masks": masks(1000, 499)})
    assert not check.passed
    assert check.value == pytest.approx(499 / 500)
    assert "masks" in check.problem


@pytest.mark.parametrize("wrong", [np.full((2, 3), 0.01), np.full((2, 3), np.nan), np.zeros((2, 4))])
def test_compare_fails_other_numbers(wrong: np.ndarray) -> None:
    (check,) = compare({"embedding": np.zeros((2, 3))}, {"embedding": wrong})
    assert not check.passed


def test_compare_fails_an_output_of_one_side() -> None:
    assert [check.passed for check in compare({"masks": masks(5)}, {})] == [False]


def test_compare_fails_masks_that_are_all_empty() -> None:
    assert [check.passed for check in compare({"masks": masks(0)}, {"masks": masks(0)})] == [False]


def test_row_divides_the_medians_of_times() -> None:
    result = row()
    assert result.ours.values == (1.0, 1.25, 2.0)
    assert result.ratio == 4.0 / 1.25
    assert result.ratio_range == (2.0, 4.0)
    assert result.memory_ratio == 0.5


def test_row_divides_memory_the_other_way() -> None:
    result = row(WEIGHED)
    assert result.ratio == 0.5
    assert result.verdict == "reaches the aim"


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (Target(at_least=2, aim=3.2), "reaches the aim"),
        (Target(at_least=3.2, aim=4), "reaches the target"),
        (Target(at_least=3.3, aim=4), "misses the target"),
        (None, None),
    ],
)
def test_row_says_what_a_speed_reaches(target: Target | None, verdict: str | None) -> None:
    assert row(replace(TIMED, target=target)).verdict == verdict


def test_row_says_what_a_memory_ratio_misses() -> None:
    assert row(WEIGHED, ours=reports([1.0] * 3, megabytes=190)).verdict == "misses the target"


@pytest.mark.parametrize("checks", [[[PASSED], [FAILED], [PASSED]], [[], [], []]])
def test_row_has_no_verdict_but_that_outputs_differ(checks: list[list[Check]]) -> None:
    result = row(checks=checks)
    assert result.verdict == "outputs differ"
    assert not result.agrees


def test_row_keeps_the_worst_round_of_a_check() -> None:
    better = replace(PASSED, value=1.0)
    assert row(checks=[[better], [PASSED], [better]]).checks == (PASSED,)
    assert row(checks=[[PASSED], [FAILED], [PASSED]]).checks == (FAILED,)


def test_cold_start_is_measured_from_the_start_of_the_process() -> None:
    assert Side.of(CASES["mobile_sam/cold"], reports([1.0])).values == (3.0,)


def test_markdown_has_wins_losses_and_disagreements() -> None:
    loss = row(peer=reports([1.0, 1.0, 1.0]))
    page = markdown([row(), loss, row(checks=[[FAILED]] * 3)])
    assert "| 1.25 s (1 to 2) | 4 s (3 to 5) | 3.20x (2.00 to 4.00) | reaches the aim | 0.50x (100 of 200 MB) |" in page
    assert "| 0.80x (0.50 to 1.00) | misses the target |" in page
    assert "**OUTPUTS DIFFER**" in page
    assert FAILED.problem in page
    lines = [line.replace("\\|", "") for line in page.splitlines() if line.startswith("|")]
    assert sorted({line.count("|") for line in lines}) == [9, 12]  # the two tables, each of one width


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [row(), row(WEIGHED)]
    for result in reversed(written):
        write_row(result, tmp_path)
    assert read_rows(tmp_path) == written
    assert write_page(tmp_path).read_text().count(WEIGHED.title) == 2


def test_report_is_the_last_line_of_the_output() -> None:
    line = '{"seconds": [1], "process_seconds": 2, "peak_bytes": 3, "python": "3", "threads": 4, "packages": {}}'
    assert Report.from_output(f"a package that talks\n{line}\n").peak_bytes == 3


def test_worker_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    job = Job("embed", "w", "i", (1, 1), "cpu", 0, 1, str(tmp_path / "outputs.npz"))
    with pytest.raises(WorkerError, match=r"No module named benchmarks\.nobody"):
        run_worker(job, python=Path(sys.executable), worker="benchmarks.nobody")


def test_command_lists_the_cases() -> None:
    app = typer.Typer()
    app.command()(run)
    result = CliRunner().invoke(app, ["--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in CASES)
    assert CliRunner().invoke(app, ["--case", "nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2
