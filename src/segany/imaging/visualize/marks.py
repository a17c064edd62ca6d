"""Markers of overlays: points, boxes and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from segany.core.arrays import FloatArray
from segany.core.prompt import FOREGROUND
from segany.imaging.visualize.style import (
    BACKGROUND_COLOR,
    BLACK,
    FOREGROUND_COLOR,
    WHITE,
    Color,
    Sizes,
    text_color,
)

Rectangle: TypeAlias = tuple[int, int, int, int]

SUPERSAMPLING = 4
"""Supersampling factor of markers, for antialiasing."""


def draw_point(canvas: Image.Image, xy: Sequence[float], label: int, sizes: Sizes) -> None:
    """Draw a green disc with a plus for a foreground point, a red disc with a minus for a background point."""
    sprite = _point_sprite(label, sizes.point)
    half = sprite.width / 2
    canvas.paste(sprite, (round(xy[0] - half), round(xy[1] - half)), sprite)


def _point_sprite(label: int, radius: float) -> Image.Image:
    side = 2 * (int(radius) + 2)
    sprite = Image.new("RGBA", (side * SUPERSAMPLING,) * 2, (*BLACK, 0))
    draw = ImageDraw.Draw(sprite)
    middle, scale = sprite.width / 2, radius * SUPERSAMPLING

    def disc(share: float, color: tuple[int, int, int, int]) -> None:
        r = scale * share
        draw.ellipse((middle - r, middle - r, middle + r, middle + r), fill=color)

    disc(1.12, (*BLACK, 110))  # keeps the white rim visible on white
    disc(1.0, (*WHITE, 255))
    disc(0.8, (*(FOREGROUND_COLOR if label == FOREGROUND else BACKGROUND_COLOR), 255))
    long, short = 0.48 * scale, 0.13 * scale
    draw.rectangle((middle - long, middle - short, middle + long, middle + short), fill=WHITE)
    if label == FOREGROUND:
        draw.rectangle((middle - short, middle - long, middle + short, middle + long), fill=WHITE)
    return sprite.resize((side, side), Image.Resampling.BOX)


def draw_box(canvas: Image.Image, box_xyxy: FloatArray, color: Color, sizes: Sizes) -> None:
    """Draw a dashed rectangle with bold corners in the object's color, with a white rim."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    corner_x, corner_y = (min(6 * sizes.line, (end - start) / 3) for start, end in ((x0, x1), (y0, y1)))
    dashes = [
        *((a, y, b, y) for y in (y0, y1) for a, b in _dashes(x0 + corner_x, x1 - corner_x, 3 * sizes.line)),
        *((x, a, x, b) for x in (x0, x1) for a, b in _dashes(y0 + corner_y, y1 - corner_y, 3 * sizes.line)),
    ]
    corners = [
        *((x, y, x + to * corner_x, y) for x, to in ((x0, 1), (x1, -1)) for y in (y0, y1)),
        *((x, y, x, y + to * corner_y) for y, to in ((y0, 1), (y1, -1)) for x in (x0, x1)),
    ]
    draw = ImageDraw.Draw(canvas)
    for rim, fill in ((max(0.5, sizes.rim), WHITE), (0.0, color)):
        for bars, width in ((dashes, sizes.line), (corners, 1.8 * sizes.line)):
            for bar in bars:
                _draw_bar(draw, bar, width / 2 + rim, fill)


def _dashes(start: float, end: float, dash: float) -> list[tuple[float, float]]:
    """Return the dashes of a line, which are as long as the gaps."""
    count = max(0, int((end - start) / dash - 1) // 2)
    gap = (end - start) / (2 * count + 1)
    return [(start + gap * (2 * i + 1), start + gap * (2 * i + 2)) for i in range(count)]


def _draw_bar(draw: ImageDraw.ImageDraw, bar: tuple[float, float, float, float], margin: float, fill: Color) -> None:
    """Draw a horizontal or vertical line x0 y0 x1 y1, extended by `margin` on all sides; at least one pixel wide."""
    left, right = sorted((bar[0], bar[2]))
    top, bottom = sorted((bar[1], bar[3]))
    x, y = round(left - margin), round(top - margin)
    # Pillow's rectangles include the last pixel.
    draw.rectangle((x, y, max(x, round(right + margin) - 1), max(y, round(bottom + margin) - 1)), fill=fill)


class Labels:
    """Text labels that stay inside the image and avoid each other."""

    def __init__(self, canvas: Image.Image, sizes: Sizes, occupied: Sequence[Rectangle] = ()) -> None:
        self.canvas = canvas
        self.font = ImageFont.load_default(sizes.text)
        self.padding = max(1, round(sizes.text * 0.3))
        self.gap = max(1, round(sizes.line + sizes.rim))
        self.occupied = list(occupied)

    def draw(self, text: str, near: Rectangle, top_x: float, color: Color) -> None:
        """Draw a label next to an object.

        Args:
            text: one short line.
            near: box of the object in pixels, x0 y0 x1 y1.
            top_x: x coordinate of the topmost pixels of the object.
            color: background color of the label.
        """
        left, _, right, _ = self.font.getbbox(text, anchor="ls")
        top = self.font.getbbox("0", anchor="ls")[1]  # the height above the baseline, the same for all labels
        width, height = round(right - left) + 2 * self.padding, round(-top) + 2 * self.padding
        if width > self.canvas.width or height > self.canvas.height:
            return  # the label would hide the whole image
        x, y = self._place(width, height, near, top_x)
        self.occupied.append((x, y, x + width, y + height))
        chip = _chip(width, height, self.padding, color)
        self.canvas.paste(chip, (x, y), chip)
        ImageDraw.Draw(self.canvas).text(
            (x + self.padding - left, y + height - self.padding), text, text_color(color), self.font, anchor="ls"
        )

    def _place(self, width: int, height: int, near: Rectangle, top_x: float) -> tuple[int, int]:
        """Choose the first position without overlap above, inside, below or beside the box, else the least overlap."""
        x0, y0, x1, y1 = near
        above, inside, below = y0 - height - self.gap, y0 + self.gap, y1 + self.gap
        wanted = [
            (top_x - width / 2, above), (x0, above), (x1 - width, above), (top_x - width / 2, inside),
            (x0 + self.gap, inside), (x1 - width - self.gap, inside), (x0, below), (x1 - width, below),
            (x0 - width - self.gap, y0), (x1 + self.gap, y0),
        ]  # fmt: skip
        limit_x, limit_y = self.canvas.width - width, self.canvas.height - height
        places = [(round(min(max(x, 0), limit_x)), round(min(max(y, 0), limit_y))) for x, y in wanted]
        return min(places, key=lambda place: self._hidden(place, width, height))

    def _hidden(self, place: tuple[int, int], width: int, height: int) -> int:
        """Return the number of pixels of earlier markers that a label at `place` would hide."""
        x, y = place
        overlaps = (
            (min(x + width, x1) - max(x, x0), min(y + height, y1) - max(y, y0)) for x0, y0, x1, y1 in self.occupied
        )
        return sum(w * h for w, h in overlaps if w > 0 and h > 0)


def _chip(width: int, height: int, radius: int, color: Color) -> Image.Image:
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    chip = Image.new("RGBA", size, (*WHITE, 0))
    rim = max(1, radius // 4) * SUPERSAMPLING
    ImageDraw.Draw(chip).rounded_rectangle(
        (0, 0, size[0] - 1, size[1] - 1), radius * SUPERSAMPLING, (*color, 255), (*WHITE, 255), rim
    )
    return chip.resize((width, height), Image.Resampling.BOX)
