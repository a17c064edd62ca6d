"""Items of training made of drawn shapes."""

from __future__ import annotations

import numpy as np

from segany.data.item import TrainingItem
from segany.data.shapes import Shapes


def shape_item(index: int, side: int, seed: int | None = None) -> TrainingItem:
    picture = Shapes(index + 1, side=side).read(index)
    masks = np.stack([picture.instances.mask(number) for number in range(len(picture.instances))])
    return TrainingItem(
        picture.name, picture.image, masks, picture.instances.mask_boxes_xyxy, index if seed is None else seed
    )
