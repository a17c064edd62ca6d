"""Items of training made of drawn shapes."""

from __future__ import annotations

from segany.data.item import TrainingItem
from segany.data.shapes import Shapes


def shape_item(index: int, side: int, seed: int | None = None) -> TrainingItem:
    picture = Shapes(index + 1, side=side).read(index)
    instances = picture.instances
    seed = index if seed is None else seed
    return TrainingItem(picture.name, picture.image, instances.masks(), instances.boxes_xyxy, seed)
