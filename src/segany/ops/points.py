"""Grids of points that prompt everything in an image."""

from __future__ import annotations

import numpy as np

from segany.types import FloatArray


def point_grid(points_per_side: int) -> FloatArray:
    """Centres of an even grid over the unit square, row by row: xy in 0..1, float32 [n * n, 2]."""
    centres = (np.arange(points_per_side, dtype=np.float64) + 0.5) / points_per_side
    x, y = np.meshgrid(centres, centres)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
