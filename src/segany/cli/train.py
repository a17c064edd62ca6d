"""`segany train`: recipes, from the command line."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segany.cli.inputs import check_folder
from segany.cli.stop_signal import StopSignal
from segany.cli.train_report import TrainReporter
from segany.core.extras import require_torch
from segany.train.field_docs import FieldDoc, field_docs
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainingRecipe, find_recipe, recipe_names

SAM_LOOP = LoopConfig(steps=90_000)
"""The loop that SAM's ViT-H was trained with (SAM, section A)."""


def _epilog() -> str:
    """What `--help` says of the loop's fields; those of a recipe need the recipe."""
    lines = [f"- `loop.{doc.name}` = {_shown(doc)}: {doc.text}" for doc in field_docs(SAM_LOOP)]
    return (
        "Every number of a recipe is a field that `--set` changes: those of its task (`task.`), of how images "
        "become items (`items.`), and of the loop. `--explain` shows all fields of a recipe and what they "
        "mean. Those of the loop, with the values SAM was trained with:\n\n" + "\n".join(lines)
    )


def _shown(doc: FieldDoc) -> str:
    if isinstance(doc.value, tuple):
        return ",".join(str(value) for value in doc.value)
    return "none" if doc.value is None else str(doc.value).lower() if isinstance(doc.value, bool) else str(doc.value)


EPILOG = _epilog()


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe that comes with segany, or a Python file"
            + (f": {', '.join(recipe_names())}." if recipe_names() else "."),
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Dataset to train on, where the recipe brings none.", show_default=False)
    ] = None,
    val_data: Annotated[
        Path | None, typer.Option(help="Dataset to validate on.", show_default="a share of --data")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of the images in --data to validate on; from 1 on, their number; 0 for none.")
    ] = 0.1,
    model: Annotated[
        str | None,
        typer.Option(help="Name or path of the model to start from.", show_default="the recipe's"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; made when it is missing.")] = Path("out/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a field: loop.lr=1e-4. Repeatable.", show_default=False
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after so many steps of this start, saved, to be resumed.", show_default="no limit"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA where there is any")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what the recipe says and all its fields, and do nothing.")
    ] = False,
) -> None:
    """Train a model by a recipe: fine-tune, learn from scratch, distil.

    Ctrl-C finishes the step in hand, saves, and says how to go on. Under `torchrun` every process takes its
    share of each batch.
    """
    require_torch()
    chosen = find_recipe(recipe).changed(settings or [])
    if explain:
        _explain(chosen)
        return
    check_folder(out, "--out")
    from segany.train.run_recipe import RunOptions, run_recipe

    options = RunOptions(out, data, val_data, val_fraction, model, device, resume, max_steps)
    is_main = os.environ.get("RANK", "0") == "0"
    with StopSignal((signal.SIGINT, signal.SIGTERM)) as stop, TrainReporter(chosen, is_main=is_main) as reporter:
        progress = stop.cancellation.watch(reporter.loading)
        result = run_recipe(chosen, options, observer=reporter, progress=progress)
    if is_main:
        # Under torchrun the signal may have come to another process.
        reporter.summarize(result, is_stopped=stop.is_set or max_steps is None)
    if stop.number is not None and result.end == "interrupted":
        raise typer.Exit(128 + stop.number)


def _explain(recipe: TrainingRecipe) -> None:
    console = Console(highlight=False)
    console.print(escape(recipe.document or recipe.title), soft_wrap=True)
    table = Table("field", "value", "meaning")
    table.columns[0].no_wrap = True
    for doc in field_docs(recipe.numbers):
        value, text = (f"({_shown(doc)})", f"No effect: {doc.void}.") if doc.void else (_shown(doc), doc.text)
        table.add_row(doc.name, escape(value), escape(text), style="dim" if doc.void else None)
    console.print(table)
