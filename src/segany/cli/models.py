"""`segany models`: the table of models."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from segany.hub import weights_status
from segany.models.registry import DEFAULT_MODEL


def models() -> None:
    """Show the models that `--model` takes."""
    table = Table("name", "title", "encoder", "input", "weights", "license", "cached")
    for column in table.columns:
        column.overflow = "fold"
    for status in weights_status():
        spec = status.spec
        side = spec.config.input_size
        table.add_row(
            spec.name,
            spec.title,
            spec.config.encoder.title,
            f"{side} x {side}",
            f"{spec.megabytes} MB",
            spec.license,
            "damaged" if status.damage else "yes" if status.path else "no",
        )
    console = Console()
    console.print(table)
    console.print(f"The default is {DEFAULT_MODEL}.", highlight=False)
