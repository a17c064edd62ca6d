"""Style of overlays: colors, and line and text sizes relative to the size of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from segany.core.arrays import SizeHW

Color: TypeAlias = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)

FOREGROUND_COLOR: Color = (22, 150, 70)
BACKGROUND_COLOR: Color = (214, 40, 40)
"""Colors of prompt points, distinct from all colors of the palette."""

PALETTE: tuple[Color, ...] = (
    (20, 130, 255),  # blue
    (255, 150, 0),  # orange
    (185, 70, 255),  # violet
    (0, 205, 200),  # teal
    (255, 90, 175),  # pink
    (250, 220, 20),  # yellow
    (75, 75, 215),  # indigo
    (165, 225, 60),  # lime
    (255, 130, 105),  # salmon
    (125, 210, 255),  # sky
    (165, 110, 60),  # brown
    (205, 175, 255),  # lavender
)
"""Colors of objects, in order. Further objects reuse them, first darker and then lighter."""

LIGHT = 0.3
"""Relative luminance above which the text on a color is black."""

TINT = 0.4
"""Opacity of the object's color in its mask."""


def object_color(index: int) -> Color:
    """Return the color of the object with an index, which is the same in all images."""
    color = PALETTE[index % len(PALETTE)]
    towards, share = ((BLACK, 0.0), (BLACK, 0.4), (WHITE, 0.5))[index // len(PALETTE) % 3]
    return mixed(color, towards, share)


def mixed(color: Color, towards: Color, share: float) -> Color:
    """Blend `color` with a share of the color `towards`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, towards, strict=True))
    return red, green, blue


def text_color(background: Color) -> Color:
    """Return black or white, whichever has more contrast to `background`."""
    red, green, blue = ((channel / 255) ** 2.2 for channel in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return BLACK if luminance > LIGHT else WHITE


@dataclass(frozen=True)
class Sizes:
    """Sizes of markers in pixels of the image.

    Attributes:
        line: width of outlines.
        rim: width of the white rim on either side of outlines.
        point: radius of points.
        text: font size.
    """

    line: float
    rim: float
    point: float
    text: float

    @classmethod
    def fitting(cls, size_hw: SizeHW) -> Sizes:
        """Scale the sizes to an image, so that images displayed at the same size look alike."""
        height, width = size_hw
        # For narrow images the short side is decisive, or the markers would hide the image.
        side = min(math.sqrt(height * width), 3 * min(height, width))
        unit = max(1.0, side / 650)
        shrink = min(1.0, side / 200)  # thumbnails have smaller markers and no rims
        return cls(
            line=max(1.0, 2 * unit * shrink),
            rim=unit if shrink == 1 else 0.0,
            point=max(3.0, 7.5 * unit * shrink),
            text=max(8.0, 14 * unit * shrink),
        )
