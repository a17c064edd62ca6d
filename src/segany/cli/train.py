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

from segany.cli.inputs import MaskThresholdOption, ObjectsOption, TrustPathsOption, check_out_folder
from segany.cli.stop_signal import StopSignal
from segany.cli.train_report import TrainReporter
from segany.core.extras import require_torch
from segany.data.opening import DataOptions
from segany.train.field_docs import FieldDoc, field_docs
from segany.train.loop_config import LoopConfig
from segany.train.recipe import TrainingRecipe, find_recipe, recipe_names

SAM_LOOP = LoopConfig(steps=90_000)
"""The loop with which SAM's ViT-H was trained (SAM, section A)."""


def _epilog() -> str:
    """The fields of the loop for `--help`; those of a task depend on the recipe."""
    lines = [f"- `loop.{doc.name}` = {_shown(doc)}: {doc.text}" for doc in field_docs(SAM_LOOP)]
    return (
        "Every number of a recipe is a field that `--set` changes: those of its task (`task.`), of the items "
        "(`items.`), and of the loop (`loop.`). `--explain` shows all fields of a recipe and their meanings. The "
        "fields of the loop, with the values with which SAM was trained:\n\n" + "\n".join(lines)
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
            help="A recipe of segany's, or the path of a Python file"
            + (f": {', '.join(recipe_names())}." if recipe_names() else "."),
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Dataset to train on, if the recipe has none of its own.", show_default=False)
    ] = None,
    val_data: Annotated[
        Path | None, typer.Option(help="Dataset to validate on.", show_default="a fraction of --data")
    ] = None,
    val_fraction: Annotated[
        float,
        typer.Option(help="Fraction of the images in --data to validate on; from 1 on, their number; 0 for none."),
    ] = 0.1,
    model: Annotated[
        str | None,
        typer.Option(help="Name or path of the model to start from.", show_default="the recipe's"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; created if it is missing.")] = Path("out/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    objects: ObjectsOption = "auto",
    mask_threshold: MaskThresholdOption = 0.5,
    trust_paths: TrustPathsOption = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a field: loop.lr=1e-4. Repeatable.", show_default=False
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Save and stop after this number of steps of this start; --resume continues.",
            show_default="no limit",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA if available")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the description of the recipe and all its fields, and exit.")
    ] = False,
) -> None:
    """Train a model by a recipe: fine-tune, train from random weights, pretrain, distill.

    Ctrl-C finishes the current step, saves, and says how to resume. Under `torchrun` every process takes its share
    of each batch.
    """
    require_torch()
    chosen = find_recipe(recipe).changed(settings or [])
    if explain:
        _explain(chosen)
        return
    check_out_folder(out, "--out")
    from segany.train.run_recipe import RunOptions, run_recipe

    reading = DataOptions(objects, mask_threshold, trust_paths)
    options = RunOptions(out, data, val_data, val_fraction, model, device, resume, max_steps, reading)
    is_main = os.environ.get("RANK", "0") == "0"
    with StopSignal((signal.SIGINT, signal.SIGTERM)) as stop, TrainReporter(chosen, is_main=is_main) as reporter:
        progress = stop.cancellation.watch(reporter.loading)
        result = run_recipe(chosen, options, observer=reporter, progress=progress)
    if is_main:
        # Under torchrun another process may have received the signal.
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
