"""A clip that is generated from a seed, for machines without a real one, and the points that are tracked in clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.noise import SEED

WIDTH, HEIGHT = 960, 540

POINTS_XY = ((210.0, 350.0), (400.0, 100.0), (620.0, 250.0), (800.0, 420.0))
"""A point in the first frame for each of up to four objects. With seeded weights, any point is suitable."""

COLORS = ("crimson", "gold", "teal", "navy")
RADIUS, STEP = 60, 9


def write_clip(folder: Path, frames: int) -> None:
    """Write a clip: four discs that start around `POINTS_XY` and drift over noise, as 00000.jpg and so on."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(SEED).integers(0, 256, (HEIGHT // 12, WIDTH // 12, 3), dtype=np.uint8)
    background = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    for frame in range(frames):
        picture = background.copy()
        draw = ImageDraw.Draw(picture)
        for number, ((x, y), color) in enumerate(zip(POINTS_XY, COLORS, strict=True)):
            shift = STEP * frame * (1 if number % 2 else -1)
            draw.circle(((x + shift) % WIDTH, y), RADIUS, fill=color)
        picture.save(folder / f"{frame:05d}.jpg", quality=90)
