"""Overlapping crops of an image, in layers of 1, 2 x 2, 4 x 4, ... (SAM, section B)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segany.types import SizeHW


@dataclass(frozen=True)
class Crop:
    """A part of an image: left, top, right, bottom in pixels, right and bottom outside; and its layer."""

    box_xyxy: tuple[int, int, int, int]
    layer: int

    @property
    def size_hw(self) -> SizeHW:
        left, top, right, bottom = self.box_xyxy
        return bottom - top, right - left


def make_crops(size_hw: SizeHW, layers: int, overlap_ratio: float) -> list[Crop]:
    """The whole image, then for each layer i its 2^i by 2^i crops.

    Args:
        size_hw: of the image.
        layers: how many layers beyond the whole image.
        overlap_ratio: overlap in the first of them, as a share of the image's shorter side; it halves
            from layer to layer.
    """
    height, width = size_hw
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size_hw) * (2 / count))
        crop_h, crop_w = (math.ceil((overlap * (count - 1) + side) / count) for side in size_hw)
        lefts = [int((crop_w - overlap) * i) for i in range(count)]
        tops = [int((crop_h - overlap) * i) for i in range(count)]
        crops.extend(
            Crop((left, top, min(left + crop_w, width), min(top + crop_h, height)), layer)
            for left in lefts
            for top in tops
        )
    return crops
