"""Rows as files: a JSON file for each case, and a Markdown page with all of them, losses included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter
from rich.table import Table

from benchmarks.cases import CASES, Quantity
from benchmarks.rows import Row, Side
from segany.core.files import write_file

_ROW = TypeAdapter(Row)

RESULT_COLUMNS = ("Case", "segany", "peer", "ratio", "result", "peak memory", "target", "outputs")
TERMINAL_COLUMNS = RESULT_COLUMNS[:6]
"""The columns for a terminal, which is narrow."""

CONDITION_COLUMNS = ("Case", "peer", "date", "segany", "CPU", "load", "threads", "Python", "PyTorch", "image", "calls")

INTRODUCTION = """\
# Results

Written by `python -m benchmarks.run`; [what is measured and how](../README.md). Times are medians with the
least and the greatest round in brackets; so are ratios. For times, the ratio is the peer's over ours: 2x is
twice as fast. For memory it is ours over the peer's: 0.5x is half the memory.
"""


def write_row(row: Row, folder: Path) -> Path:
    """Write a row as JSON to its path in the folder. Returns the path."""
    return write_file(_path(row.case, folder), _ROW.dump_json(row, indent=2) + b"\n")


def read_rows(folder: Path) -> list[Row]:
    """Read all rows of the folder, in the order of the table of cases."""
    paths = [path for name in CASES if (path := _path(name, folder)).exists()]
    return [_ROW.validate_json(path.read_bytes()) for path in paths]


def write_page(folder: Path) -> Path:
    """Write the folder's README.md from all its rows. Returns the path."""
    return write_file(folder / "README.md", markdown(read_rows(folder)).encode())


def markdown(rows: Sequence[Row]) -> str:
    """Format the results, plots and conditions of rows as a page."""
    results = _markdown_table(RESULT_COLUMNS, [result_cells(row) for row in rows])
    conditions = _markdown_table(CONDITION_COLUMNS, [condition_cells(row) for row in rows])
    plots = "".join(f"\n![{row.title}]({row.case}.png)\n" for row in rows if row.ours.resident_bytes)
    return f"{INTRODUCTION}\n{results}{plots}\n## Conditions\n\n{conditions}"


def rich_table(rows: Sequence[Row]) -> Table:
    """Format the results of rows for a terminal."""
    table = Table(*TERMINAL_COLUMNS)
    table.columns[0].no_wrap = True
    for row in rows:
        cells = result_cells(row)[1 : len(TERMINAL_COLUMNS)]
        table.add_row(row.case, *cells, style=None if row.agrees else "red")
    return table


def result_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row for `RESULT_COLUMNS`."""
    low, high = row.ratio_range
    ours_mb, peer_mb = (side.peak_bytes / 1e6 for side in (row.ours, row.peer))
    return (
        row.title,
        side_cell(row.ours, row.quantity),
        side_cell(row.peer, row.quantity),
        f"{row.ratio:.2f}x ({low:.2f} to {high:.2f})",
        "**OUTPUTS DIFFER**" if not row.agrees else row.verdict or "no target",
        f"{row.memory_ratio:.2f}x ({ours_mb:.0f} of {peer_mb:.0f} MB)",
        _target_cell(row),
        _outputs_cell(row),
    )


def condition_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row for `CONDITION_COLUMNS`."""
    conditions, setting = row.conditions, row.conditions.setting
    own_packages = {name: version for name, version in row.peer.packages.items() if name != "torch"}
    return (
        row.title,
        ", ".join(f"{name} {version}" for name, version in own_packages.items()),
        setting.date,
        setting.commit,
        f"{setting.cpu}, {setting.cores} cores",
        f"{setting.load:g}",
        _both(row.ours.threads, row.peer.threads),
        _both(row.ours.python, row.peer.python),
        _both(row.ours.packages.get("torch"), row.peer.packages.get("torch")),
        conditions.image,
        f"{len(row.ours.values)} rounds of {conditions.repeats} after {conditions.warmup}, {conditions.device}",
    )


def side_cell(side: Side, quantity: Quantity) -> str:
    """Format median and range of one side in a suitable unit."""
    unit, scale = ("MB", 1e-6) if quantity == "peak bytes" else ("s", 1.0) if side.median >= 1 else ("ms", 1e3)
    middle, low, high = (f"{value * scale:.3g}" for value in (side.median, min(side.values), max(side.values)))
    return f"{middle} {unit} ({low} to {high})"


def _target_cell(row: Row) -> str:
    if row.target is None:
        return "none"
    bound = "at most" if row.quantity == "peak bytes" else "at least"
    return f"{bound} {row.target.at_least:g}x, aim {row.target.aim:g}x"


def _outputs_cell(row: Row) -> str:
    problems = [check.problem for check in row.checks if not check.passed]
    if problems:
        return "; ".join(problems)
    return ", ".join(f"{check.output}: {check.measure} {check.value:.3g}" for check in row.checks)


def _both(ours: object, peer: object) -> str:
    return str(ours) if ours == peer else f"{ours} against {peer}"


def _markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, ["---"] * len(columns), *escaped))


def _path(case: str, folder: Path) -> Path:
    return folder / f"{case}.json"
