"""Automatic mask generation: crop boxes, point grids, and the masks that a model predicts for them (SAM, section B)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segany.core.arrays import FloatArray, IntArray, SizeHW
from segany.imaging.measure import Logits


@dataclass(frozen=True)
class Crop:
    """A crop of an image: half-open box x0 y0 x1 y1 in pixels, and its layer (0 is the whole image)."""

    box_xyxy: tuple[int, int, int, int]
    layer: int

    @property
    def size_hw(self) -> SizeHW:
        left, top, right, bottom = self.box_xyxy
        return bottom - top, right - left


def generate_crop_boxes(size_hw: SizeHW, layers: int, overlap_ratio: float) -> list[Crop]:
    """Generate the crop boxes: the whole image, then 2^i by 2^i crops for each layer i.

    Args:
        size_hw: size of the image.
        layers: number of layers after the whole image.
        overlap_ratio: overlap of the crops in layer 1 as a fraction of the shorter side of the image; it halves with
            each layer.
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
    """Build an evenly spaced grid of points in the unit square, row-major: xy in 0..1, float32 [n * n, 2]."""
    centers = (np.arange(points_per_side, dtype=np.float64) + 0.5) / points_per_side
    x, y = np.meshgrid(centers, centers)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


class Proposals(NamedTuple):
    """K masks above the threshold on the predicted IoU, from a batch of prompts.

    Attributes:
        prompts: int64 [K], index of the prompt of each mask.
        scores: float32 [K], predicted IoU.
        low_res: low-res logits [K, h, w]; a tensor if they are on an accelerator, to avoid a transfer.
        done: number of prompts decoded so far.
    """

    prompts: IntArray
    scores: FloatArray
    low_res: Logits
    done: int
