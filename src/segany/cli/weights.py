"""`segany weights`: lists, downloads, locates and removes the weights of models."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from segany.cli.work_bar import EventBars
from segany.core.errors import WeightsError
from segany.hub import WeightsStatus, cached_path, fetch_weights, remove_weights, weights_status
from segany.models.registry import find_spec

app = typer.Typer(help="Download, locate and remove the weights of models.", no_args_is_help=True)


@app.command("list")
def list_models(
    sources: Annotated[
        bool, typer.Option("--sources", help="Also show the paths and the sources of the files.")
    ] = False,
) -> None:
    """Show every model and whether its weights are in the cache."""
    table = Table("name", "size", "cached", "license")
    statuses = weights_status()
    for status in statuses:
        table.add_row(status.spec.name, f"{status.spec.megabytes} MB", _state(status), status.spec.license)
    Console().print(table)
    if sources:
        for status in statuses:
            typer.echo(_places(status))


@app.command()
def pull(names: Annotated[list[str], typer.Argument(help="Models, as `segany weights list` names them.")]) -> None:
    """Download the weights of models, unless they are in the cache."""
    specs = [find_spec(name) for name in names]  # check all names before the first download
    for spec in specs:
        with EventBars() as progress:
            path = fetch_weights(spec, progress=progress)
        typer.echo(f"{spec.name}: {path}")  # after the bar is removed


@app.command()
def path(name: str) -> None:
    """Print the path of the weights of a model, and nothing else."""
    found = cached_path(find_spec(name))
    if found is None:
        raise WeightsError(f"The weights of {name!r} are not in the cache. Download them: segany weights pull {name}")
    typer.echo(found)


@app.command()
def remove(name: str) -> None:
    """Delete the weights of a model from the cache."""
    freed = remove_weights(find_spec(name))
    typer.echo(f"Removed {name}: {freed / 1e6:.0f} MB freed." if freed else f"The cache has no files of {name}.")


def _state(status: WeightsStatus) -> str:
    if status.path is not None:
        return "yes"
    return "damaged" if status.damage else "no"


def _places(status: WeightsStatus) -> str:
    """The model's file and its sources, one per line; a terminal may wrap these lines, but nothing truncates them."""
    lines = [f"cached at {status.path}"] if status.path else list(status.damage)
    lines += [f"from {source}" for source in status.spec.sources]
    return "\n  ".join([f"{status.spec.name}:", *lines])
