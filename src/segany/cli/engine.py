"""`segany engine`: the data engine of a project, from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segany.cli.work_bar import EventBars
from segany.core.errors import StoreError
from segany.core.progress import ProgressEvent
from segany.models.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from segany.engine import EngineRules
    from segany.store import ModelVersion, Store

app = typer.Typer(
    no_args_is_help=True,
    help="The data engine of a project: its models, trained on what people annotated.",
)

POLL_SECONDS = 0.2

ProjectOption = Annotated[
    Path | None, typer.Option("--project", help="Folder of the project.", show_default="that of segany serve")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Setting of the recipe, such as loop.steps=200. Repeatable."),
]


@app.command()
def start(
    project: ProjectOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to begin with: a name from `segany models`, or a model file (.safetensors).",
            show_default=f"{DEFAULT_MODEL}, or that of the project",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="assisted-manual, semi-automatic or automatic.", show_default="as it is")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe: finetune_decoder, adapters or sam.", show_default="as it is")
    ] = None,
    overrides: OverridesOption = None,
    retrain_after: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="New masks until a retraining is due.", show_default="as it is")
    ] = None,
    min_train: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Fewest masks to train on.", show_default="as it is")
    ] = None,
    min_val: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Fewest masks to compare models on.", show_default="as it is")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the engine of a project, or change its rules."""
    from segany.engine import EngineRules, start

    with _opened(project) as store:
        given: dict[str, Any] = {
            "stage": stage,
            "recipe": recipe,
            "retrain_after": retrain_after,
            "min_train": min_train,
            "min_val": min_val,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        rules = replace(EngineRules.of(store), **changes)
        if overrides is not None:
            rules = replace(rules, overrides=tuple(overrides))
        _check_recipe(rules)
        first = next(iter(store.models.list()), None)
        if model is None and first is not None:
            rules.keep(store)
            version = first
        else:
            version = start(store, model or DEFAULT_MODEL, rules)
        _print_version(version, as_json, f"The engine of {store.project.name!r} began with {version.model}.")


@app.command()
def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show the stage, the models, and whether a retraining is due."""
    from segany.engine import status

    with _opened(project, exclusive=False) as store:
        found = status(store)
        current = found.current
        if as_json:
            facts = {
                "rules": found.rules.as_json(),
                "current": None if current is None else current.number,
                "train_masks": found.train_masks,
                "val_masks": found.val_masks,
                "new_masks": found.new_masks,
                "is_due": found.is_due,
                "job": None if found.job is None else {"state": found.job.state, "message": found.job.message},
                "versions": [_version_facts(one) for one in found.versions],
            }
            typer.echo(json.dumps(facts))
            return
        console = Console(soft_wrap=True, highlight=False)
        if current is None:
            console.print("The engine of this project was not started: segany engine start")
            return
        console.print(
            Text(
                f"{store.project.name}: {found.rules.stage} stage. {found.train_masks} masks to train on, "
                f"{found.new_masks} of them new; {found.val_masks} to validate on."
            )
        )
        console.print(_table(found.versions))
        if found.job is not None:
            console.print(Text(f"A retraining is {found.job.state}: {found.job.message}"))
        elif found.is_due:
            console.print("A retraining is due: segany engine retrain")


@app.command()
def retrain(project: ProjectOption = None, overrides: OverridesOption = None, as_json: JsonOption = False) -> None:
    """Train a candidate on all finished masks, and promote it if it is better. After an interrupt, it goes on."""
    from segany.engine import RETRAIN, EngineRules, retrain_handler, submit_retrain
    from segany.jobs.queue import JobQueue

    with _opened(project) as store:
        rules = EngineRules.of(store)
        if overrides:
            rules = replace(rules, overrides=(*rules.overrides, *overrides))
        _check_recipe(rules)
        job = submit_retrain(store, rules)
        with EventBars() as bars, JobQueue(store, {RETRAIN: retrain_handler(store)}) as queue:
            queue.wake()
            while (job := store.jobs.get(job.id)).state in ("queued", "running"):
                if job.state == "running" and job.message:
                    bars(ProgressEvent(job.message, job.done, job.total or None, job.unit))
                time.sleep(POLL_SECONDS)
        if job.state != "done":
            raise StoreError(job.message or f"The retraining was {job.state}.")
        version = store.models.get(int(job.result["version"]))
        _print_version(version, as_json, f"Version {version.number}: {version.message}")


@app.command()
def promote(
    version: Annotated[int, typer.Argument(min=1, max=2**31 - 1, help="Number of the version.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version annotate whatever its figures are, such as one that was refused."""
    with _opened(project) as store:
        promoted = store.models.make_current(version)
        _print_version(promoted, as_json, f"Version {promoted.number} annotates now.")


@app.command()
def rollback(
    version: Annotated[
        int | None,
        typer.Argument(
            min=1,
            max=2**31 - 1,
            help="Number of the version.",
            show_default="the one that the current one was trained from",
        ),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier version."""
    from segany.engine import roll_back

    with _opened(project) as store:
        back = roll_back(store, version)
        _print_version(back, as_json, f"Version {back.number} annotates now.")


@contextmanager
def _opened(project: Path | None, *, exclusive: bool = True) -> Iterator[Store]:
    from segany.store import Store, default_project

    folder = project or default_project()
    if not Store.is_project(folder):
        raise StoreError(f"{folder} is no project. Make one: segany serve photos/ --project {folder}")
    with Store.open(folder, exclusive=exclusive) as store:
        yield store


def _check_recipe(rules: EngineRules) -> None:
    """Refuse overrides that the recipe does not have, before anything is changed."""
    from segany.train.recipe import find_recipe

    find_recipe(rules.recipe).changed(rules.overrides)


def _version_facts(version: ModelVersion) -> dict[str, Any]:
    return {
        "number": version.number,
        "state": version.state,
        "model": version.model,
        "sha256": version.sha256,
        "recipe": version.recipe,
        "message": version.message,
        "figures": version.figures,
        "created_at": version.created_at.isoformat(),
    }


def _print_version(version: ModelVersion, as_json: bool, text: str) -> None:
    if as_json:
        typer.echo(json.dumps(_version_facts(version)))
    else:
        Console(soft_wrap=True, highlight=False).print(Text(text))


def _table(versions: tuple[ModelVersion, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("version", "state", "masks", "1 click", "3 clicks", "decision"):
        table.add_column(title)
    for version in versions:
        after = version.figures.get("after", {})
        table.add_row(
            str(version.number),
            version.state,
            str(version.figures.get("train_masks", "")),
            *(f"{after[name]:.3f}" if after.get(name) is not None else "" for name in ("miou_1", "miou_3")),
            Text(version.message or version.model),
        )
    return table
