"""The harness of the benchmarks: what it concludes from measurements, not the measurements."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image, ImageColor
from tests.models_for_tests import loaded, small_sam2
from typer.testing import CliRunner

from segany.models.registry import find_spec

pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks import measure as measuring
from benchmarks import ours
from benchmarks.agreement import Check, compare, mask_iou
from benchmarks.cases import CASES, OURS, Case, Target
from benchmarks.clip import HEIGHT, POINTS_XY, WIDTH, write_clip
from benchmarks.measure import OUR_PYTHON, Inputs, WorkerError, make_job, measure, run_worker
from benchmarks.noise import write_noise_checkpoint
from benchmarks.plot import COLORS, write_plot
from benchmarks.protocol import RESIDENT, Arrays, Job, Report, resident_bytes, serve
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


def test_worker_reports_resident_memory_and_does_not_compare_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job("track", "w", "i", (1, 1), "cpu", 1, 2, str(tmp_path / "outputs.npz"), points_xy=((1, 2), (3, 4)))
    outputs = {"masks": masks(5), RESIDENT: np.array([7, 8])}
    monkeypatch.setattr(sys, "argv", ["worker", job.to_json()])
    serve({"track": lambda _: lambda: dict(outputs)}, modules=())
    report = Report.from_output(capsys.readouterr().out)
    assert report.resident_bytes == [7, 8]
    assert Side.of(WEIGHED, [report]).resident_bytes == (7, 8)
    assert list(np.load(job.outputs)) == ["masks"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says so in a file")
def test_resident_memory_grows_with_what_is_written_to() -> None:
    before = resident_bytes()
    array = np.ones(2**23)
    assert resident_bytes() - before == pytest.approx(array.nbytes, rel=0.2)


def test_case_beside_ourselves_runs_its_other_task_with_our_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def pretend(job: Job, *, python: Path, worker: str) -> tuple[Report, Arrays]:
        ran.append((job.task, python, worker, job.clip, job.points_xy))
        return reports([1.0])[0], {"masks": masks(5)}

    monkeypatch.setattr(measuring, "run_worker", pretend)
    (tmp_path / f"{CASES['sam2/track_memory'].model}.pth").touch()
    inputs = Inputs(tmp_path / "i.png", (1, 1), tmp_path, None, tmp_path)
    result = measure(
        CASES["sam2/track_memory"],
        inputs,
        CONDITIONS.setting,
        peer_python=Path("peer"),
        rounds=1,
        announce=lambda _: None,
    )
    given = (OUR_PYTHON, OURS, str(tmp_path), POINTS_XY[:1])
    assert ran == [("track_300", *given), ("track_60", *given)]
    assert result.conditions.image == tmp_path.name


def test_our_worker_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.segany, "load", lambda *_, **__: loaded(small_sam2()))
    write_clip(tmp_path / "clip", 3)
    job = Job("track", "w", "i", (1, 1), "cpu", 0, 3, "o", clip=str(tmp_path / "clip"), points_xy=POINTS_XY[:2])
    call = ours.track(job)
    for _ in range(3):
        outputs = call()
        assert outputs["masks"].shape == outputs["mask_logits"].shape == (2, HEIGHT, WIDTH)
        assert (outputs["masks"] == (outputs["mask_logits"] > 0)).all()
    again = ours.track_many(job, 4, compared=2)()
    assert (again["masks"] == outputs["masks"]).all()
    assert len(again[RESIDENT]) == 4


def test_clip_is_made_once_where_there_is_none(tmp_path: Path) -> None:
    for name in ("sam2/track_one", "sam2/track_four", "sam2/embed"):
        (tmp_path / f"{CASES[name].model}.pth").touch()
    inputs = Inputs(tmp_path / "i.png", (1, 1), None, None, tmp_path)
    jobs = [make_job(CASES[name], inputs) for name in ("sam2/track_one", "sam2/track_four")]
    assert jobs[0].clip == jobs[1].clip
    assert [len(job.points_xy) for job in jobs] == [1, 4]
    assert len(list(Path(jobs[0].clip).iterdir())) == jobs[0].warmup + jobs[0].repeats
    assert make_job(CASES["sam2/embed"], inputs).clip == ""


def test_clip_moves_and_is_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_clip(tmp_path / folder, 2)
    first, second = sorted((tmp_path / "a").iterdir())
    assert first.name == "00000.jpg"
    assert first.read_bytes() == (tmp_path / "b" / first.name).read_bytes()
    assert first.read_bytes() != second.read_bytes()
    with Image.open(first) as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_seeded_checkpoint_is_one_that_both_sides_load(tmp_path: Path) -> None:
    model = "sam2.1_hiera_tiny"
    write_noise_checkpoint(model, tmp_path / "w.pt")
    state = torch.load(tmp_path / "w.pt", weights_only=True)["model"]
    shapes = {key: value.shape for key, value in find_spec(model).build_empty().state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == shapes


def test_plot_shows_both_lines_where_they_belong(tmp_path: Path) -> None:
    result = row(WEIGHED)
    flat = replace(result.ours, resident_bytes=(10**8,) * 30)
    growing = replace(result.peer, resident_bytes=tuple(10**8 + 5 * 10**6 * frame for frame in range(20)))
    result = replace(result, ours=flat, peer=growing)
    path = write_plot(result, tmp_path)
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))[60:340]  # above the legend
    our_line, peer_line = (np.argwhere((pixels == ImageColor.getrgb(color)).all(axis=2)) for color in COLORS)
    assert np.ptp(our_line[:, 0]) <= 3
    assert np.ptp(peer_line[:, 0]) > 100
    assert our_line[:, 1].max() > peer_line[:, 1].max()
    assert f"]({path.relative_to(tmp_path)})" in markdown([result])
    assert "![" not in markdown([row()])


def test_command_lists_the_cases() -> None:
    app = typer.Typer()
    app.command()(run)
    result = CliRunner().invoke(app, ["--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in CASES)
    assert CliRunner().invoke(app, ["--case", "nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2
