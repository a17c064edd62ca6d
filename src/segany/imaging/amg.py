"""Automatic mask generation: crop boxes, point grids and the masks a model proposes (SAM, section B)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segany.core.arrays import FloatArray, IntArray, SizeHW
from segany.imaging.measure import Logits


@dataclass(frozen=True)
class Crop:
    """A part of an image: left, top, right, bottom in pixels, right and bottom outside; and its layer."""

    box_xyxy: tuple[int, int, int, int]
    layer: int

    @property
    def size_hw(self) -> SizeHW:
        left, top, right, bottom = self.box_xyxy
        return bottom - top, right - left


def generate_crop_boxes(size_hw: SizeHW, layers: int, overlap_ratio: float) -> list[Crop]:
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


def build_point_grid(points_per_side: int) -> FloatArray:
    """Centers of an even grid over the unit square, row by row: xy in 0..1, float32 [n * n, 2]."""
    centers = (np.arange(points_per_side, dtype=np.float64) + 0.5) / points_per_side
    x, y = np.meshgrid(centers, centers)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


class Proposals(NamedTuple):
    """Masks that were found good, K in all.

    Attributes:
        prompts: int64 [K], which prompt made each.
        scores: float32 [K], predicted IoU.
        low_res: logits [K, h, w]; a tensor where they lie on an accelerator, so that they stay there.
        done: prompts decoded so far.
    """

    prompts: IntArray
    scores: FloatArray
    low_res: Logits
    done: int
