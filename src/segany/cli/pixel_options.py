"""Options that make the `PixelOptions` of images with ambiguous pixel values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar, cast

import typer

from segany.core.errors import ConfigError
from segany.imaging.pixels import PixelOptions

NumberT = TypeVar("NumberT", int, float)

_PANEL = "Pixel values of ambiguous images"

RangeOption = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        help="Values that become black and white, such as 0,4095 for 12 bits; or percentile.",
        show_default="full range of integers, 0,1 of floats",
        rich_help_panel=_PANEL,
    ),
]
BandsOption = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="R,G,B",
        help="Bands that become red, green and blue, or one that becomes gray, counted from 0.",
        show_default="the first three",
        rich_help_panel=_PANEL,
    ),
]
PageOption = Annotated[
    int | None,
    typer.Option(
        "--page", min=0, help="Page of a TIFF, counted from 0.", show_default="the only one", rich_help_panel=_PANEL
    ),
]


def parse_pixel_options(value_range: str | None, bands: str | None, page: int | None) -> PixelOptions:
    """The `PixelOptions` of the options of the command line.

    Raises:
        ConfigError: an option does not have the form that its help describes.
    """
    chosen: tuple[float, float] | Literal["percentile"] | None = None
    if value_range == "percentile":
        chosen = "percentile"
    elif value_range is not None:
        chosen = cast(tuple[float, float], _numbers(value_range, "--range", float))
    return PixelOptions(chosen, None if bands is None else _numbers(bands, "--bands", int), page)


def _numbers(text: str, option: str, kind: Callable[[str], NumberT]) -> tuple[NumberT, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} must be numbers separated by commas, got {text!r}.") from None
