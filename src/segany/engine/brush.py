"""A simulated brush: strokes that correct a mask, and how long they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray
from segany.core.extras import import_extra
from segany.evaluate.metrics import mask_iou


@dataclass(frozen=True)
class Stroke:
    """A stroke of the brush over one error region.

    Attributes:
        adds: whether it paints; otherwise it erases.
        area: pixels of the region.
        width: diameter of the brush in pixels, twice the largest distance of a pixel of the region to its boundary.
    """

    adds: bool
    area: int
    width: float

    @property
    def widths(self) -> float:
        """Length of the stroke in diameters of the brush: a stroke covers its length times its diameter."""
        return max(1.0, self.area / self.width**2)


def brush(mask: BoolArray, target: BoolArray, stop_iou: float) -> tuple[BoolArray, tuple[Stroke, ...]]:
    """Correct a mask with strokes until it has an IoU with its target.

    Each stroke corrects one connected region of false negatives or of false positives, the largest one that is left.
    Strokes are exact, unlike those of people.

    Args:
        mask: bool [H, W], the mask.
        target: bool [H, W], the mask that is wanted.
        stop_iou: the IoU at which the strokes end.

    Returns:
        The corrected mask, bool [H, W], and the strokes, in order.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    ndimage = import_extra("scipy.ndimage", "Simulated annotators need SciPy", "train")
    corrected = mask.copy()
    if mask_iou(corrected, target) >= stop_iou:
        return corrected, ()
    regions: list[tuple[int, bool, BoolArray, tuple[slice, slice]]] = []
    for adds, wrong in ((True, target & ~mask), (False, mask & ~target)):
        labeled, _ = ndimage.label(wrong, structure=np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(labeled), start=1):
            region = labeled[place] == number
            regions.append((int(region.sum()), adds, region, place))
    strokes: list[Stroke] = []
    for area, adds, region, place in sorted(regions, key=lambda one: -one[0]):
        corrected[place][region] = adds
        depth = float(ndimage.distance_transform_edt(np.pad(region, 1)).max())
        strokes.append(Stroke(adds, area, 2 * depth))
        if mask_iou(corrected, target) >= stop_iou:
            break
    return corrected, tuple(strokes)
