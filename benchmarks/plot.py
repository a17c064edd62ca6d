"""A plot of resident memory over the frames of a clip."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.rows import Row
from segany.core.files import write_file

SIZE = (960, 480)
LEFT, TOP, RIGHT, BOTTOM = 90, 60, 930, 410
"""The rectangle between the axes, in pixels."""

COLORS = ("#1f5fa8", "#d9730d")
"""Colors of our line and of the other one."""

INK, GRID = "#333333", "#dddddd"


def write_plot(row: Row, folder: Path) -> Path:
    """Plot the resident memory after each frame, on both sides. Returns the path.

    Args:
        row: a row whose sides recorded it.
        folder: folder of the results.
    """
    lines = [side.resident_bytes for side in (row.ours, row.peer)]
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    frames = max(map(len, lines))
    top_mb = _round_up(max(max(line, default=0) for line in lines) / 1e6)
    _draw_axes(draw, row.title, frames, top_mb)
    # The longer line lies under the shorter one, which would be hidden otherwise.
    for line, color in sorted(zip(lines, COLORS, strict=True), key=lambda pair: -len(pair[0])):
        points = [(_x(frame, frames), _y(value / 1e6, top_mb)) for frame, value in enumerate(line, start=1)]
        draw.line(points, fill=color, width=3)
    for number, (line, color) in enumerate(zip(lines, COLORS, strict=True)):
        y = BOTTOM - 60 + 24 * number
        draw.line((LEFT + 30, y, LEFT + 60, y), fill=color, width=3)
        label = f"{len(line)} frames, {line[0] / 1e6:.0f} MB after the first and {line[-1] / 1e6:.0f} MB after the last"
        draw.text((LEFT + 70, y), label, fill=INK, font=_font(15), anchor="lm")
    buffer = io.BytesIO()
    picture.quantize(64).save(buffer, "PNG", optimize=True)
    return write_file(folder / f"{row.case}.png", buffer.getvalue())


def _draw_axes(draw: ImageDraw.ImageDraw, title: str, frames: int, top_mb: float) -> None:
    draw.text((LEFT, 28), title, fill=INK, font=_font(20), anchor="lm")
    for tick in _ticks(top_mb):
        y = _y(tick, top_mb)
        draw.line((LEFT, y, RIGHT, y), fill=GRID)
        draw.text((LEFT - 8, y), f"{tick:g} MB", fill=INK, font=_font(14), anchor="rm")
    for tick in _ticks(frames):
        draw.text((_x(tick, frames), BOTTOM + 16), f"{tick:g}", fill=INK, font=_font(14), anchor="mm")
    draw.text(((LEFT + RIGHT) / 2, BOTTOM + 44), "frames tracked", fill=INK, font=_font(15), anchor="mm")
    draw.line((LEFT, TOP, LEFT, BOTTOM, RIGHT, BOTTOM), fill=INK)


def _ticks(top: float) -> Sequence[float]:
    """Return 0 and a few round numbers above it, up to `top`."""
    step = _round_up(top / 6)
    return [step * number for number in range(int(top / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    """The next number of the form 1, 2, 5, 10, 20, 50, ..."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next((power * factor for factor in (1, 2, 5) if power * factor >= value), power * 10)


def _x(frame: float, frames: int) -> float:
    return LEFT + (RIGHT - LEFT) * frame / frames


def _y(megabytes: float, top_mb: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * megabytes / top_mb


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
