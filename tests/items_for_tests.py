"""Training items of simple shapes, for tests."""

from __future__ import annotations

import numpy as np

from segany.core.arrays import SizeHW
from segany.data.item import TrainingItem


def make_item(name: str = "a", size_hw: SizeHW = (256, 192), side: int = 256, seed: int = 0) -> TrainingItem:
    """A smooth picture of its seed's own with one bright rectangle, which is its mask."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    waves = rng.uniform(0.02, 0.1, size=(3, 2))
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([127 + 80 * np.sin(a * rows + b * columns) for a, b in waves], axis=-1).astype(np.uint8)
    mask = np.zeros((1, side, side), dtype=np.bool_)
    mask[0, height // 4 : height // 2, width // 4 : width // 2] = True
    image[mask[0, :height, :width]] = 255
    box = np.array([[width // 4, height // 4, width // 2, height // 2]], dtype=np.float32)
    return TrainingItem(name=name, image=image, masks=mask, boxes_xyxy=box, seed=seed)
