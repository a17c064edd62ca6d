"""Measure segany beside another implementation: `python -m benchmarks.run --peer-python PATH`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console

from benchmarks.cases import CASES, Case
from benchmarks.measure import Inputs, WorkerError, measure, measure_ours
from benchmarks.plot import write_plot
from benchmarks.setting import REPOSITORY, Setting
from benchmarks.tables import rich_table, side_cell, write_page, write_row

IMAGES = {
    REPOSITORY.parent / "shared" / "images" / "truck.jpg": (500.0, 375.0),
    REPOSITORY / "examples" / "images" / "coffee.png": (168.0, 124.0),
}
"""Default images, of which the first that exists is used, each with a point on an object."""

CLIP = REPOSITORY.parent / "shared" / "video" / "bedroom"
"""Default folder of frames, 960 x 540; if it does not exist, a clip is generated from a seed."""

RESULTS = REPOSITORY / "benchmarks" / "results"

console = Console()


def run(
    list_cases: Annotated[bool, typer.Option("--list", help="Show the cases and stop.")] = False,
    case: Annotated[list[str] | None, typer.Option(help="Measure this case. Repeatable.", show_default="all")] = None,
    peer_python: Annotated[Path | None, typer.Option(help="Interpreter that has the peers' packages.")] = None,
    only_ours: Annotated[bool, typer.Option("--only-ours", help="No peer, no comparison, no results.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each side, in alternation.")] = 5,
    image: Annotated[
        Path | None, typer.Option(help="Image file, prompted at its center.", show_default="one with a known point")
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="Folder of .jpg frames with numbers for names, at least 12.", show_default="known or made"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="MobileSAM checkpoint.", show_default="segany's own")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.", show_default="benchmarks/results")] = RESULTS,
) -> None:
    """Measure segany beside other implementations of the same models, in alternation, each in a separate process.

    Exits with status 1 if outputs differ or a process fails. A missed target is a result and not an error.
    """
    if list_cases:
        for known in CASES.values():
            console.print(f"{known.name:24}{known.title}")
        return
    chosen = [_find(name) for name in case or CASES]
    if peer_python is None and not only_ours:
        raise typer.BadParameter("Give --peer-python, or --only-ours to do without a peer.")
    setting = Setting.current()
    if setting.is_busy:
        console.print(f"This machine is busy (load {setting.load:g}): what follows is noise.", style="yellow")
    with tempfile.TemporaryDirectory() as scratch:
        image_path, point_xy = _image(image)
        if clip is None and CLIP.is_dir():
            clip = CLIP
        inputs = Inputs(image_path, point_xy, clip, weights, Path(scratch))
        if peer_python is None or only_ours:
            _run_ours(chosen, inputs, rounds)
        elif not _run_both(chosen, inputs, setting, peer_python, rounds, results):
            raise typer.Exit(1)


def _run_ours(cases: Iterable[Case], inputs: Inputs, rounds: int) -> None:
    for case in cases:
        side = measure_ours(case, inputs, rounds=rounds)
        console.print(f"{case.name}: {side_cell(side, case.quantity)}, peak memory {side.peak_bytes / 1e6:.0f} MB")


def _run_both(
    cases: list[Case], inputs: Inputs, setting: Setting, peer_python: Path, rounds: int, results: Path
) -> bool:
    """Measure, print and write each case. Returns whether all processes succeeded and all outputs agreed."""
    # Absolute, but not resolved: a virtual environment's interpreter is a link that leads out of it.
    peer_python = Path.cwd() / peer_python
    rows = []
    for case in cases:
        console.print(case.name, style="bold")
        try:
            row = measure(case, inputs, setting, peer_python=peer_python, rounds=rounds, announce=_announce)
        except WorkerError as error:
            console.print(str(error), style="red", markup=False)
            continue
        rows.append(row)
        write_row(row, results)
        if row.ours.resident_bytes:
            write_plot(row, results)
        write_page(results)
    if rows:
        console.print(rich_table(rows))
    return len(rows) == len(cases) and all(row.agrees for row in rows)


def _announce(line: str) -> None:
    console.print(f"  {line}")


def _find(name: str) -> Case:
    if name not in CASES:
        raise typer.BadParameter(f"There is no case {name!r}. There are: {', '.join(CASES)}.")
    return CASES[name]


def _image(given: Path | None) -> tuple[Path, tuple[float, float]]:
    """Return the default image and a point in it."""
    if given is None:
        return next((path, point) for path, point in IMAGES.items() if path.exists())
    with Image.open(given) as image:
        center = image.width / 2, image.height / 2
    return given, IMAGES.get(given.resolve(), center)


if __name__ == "__main__":
    typer.run(run)
