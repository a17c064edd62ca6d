"""`segany models`: what can be loaded."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from segany.hub import weights_status
from segany.models.mobile_sam.config import TinyVitConfig
from segany.models.registry import DEFAULT_MODEL
from segany.models.sam.config import VitConfig
from segany.models.sam2.config import HieraConfig

_ENCODERS: dict[type, str] = {VitConfig: "ViT", TinyVitConfig: "TinyViT", HieraConfig: "Hiera"}


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
            _ENCODERS[type(spec.config.encoder)],
            f"{side} x {side}",
            f"{spec.megabytes} MB",
            spec.license,
            "damaged" if status.damage else "yes" if status.path else "no",
        )
    console = Console()
    console.print(table)
    console.print(f"The default is {DEFAULT_MODEL}.", highlight=False)
