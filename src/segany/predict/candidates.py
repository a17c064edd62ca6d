"""Filtering and non-maximum suppression of candidate masks before they are upscaled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, IntArray, SizeHW
from segany.core.boxes import overlap
from segany.imaging.measure import BoxBounds, CutOut, Logits, MaskMeasures, bound_boxes, cut_out, restore
from segany.imaging.processor import ImageProcessor

_MEASURED_AT_ONCE = {"cpu": 1, "gpu": 64}
"""Batch size for measuring masks: larger batches gain nothing on a CPU, and amortize kernel launches on a GPU."""


@dataclass(frozen=True)
class Chosen:
    """The K selected candidates, highest score first.

    Attributes:
        index: int64 [K], indices of the candidates in the order in which they were added.
        low_res: `Logits` [h, w] of each.
        stability: float32 [K], stability scores.
        boxes_xyxy: float32 [K, 4].
    """

    index: IntArray
    low_res: tuple[Logits, ...]
    stability: FloatArray
    boxes_xyxy: FloatArray


class Candidates:
    """Candidate masks of one image, most of which are duplicates.

    A candidate is measured at the size of the image only if bounds on its box do not show that a kept mask suppresses
    it, and only the crop of the logits around the mask is stored. The result is the same as if all candidates were
    measured first.
    """

    def __init__(self, processor: ImageProcessor, size_hw: SizeHW, stability_offset: float) -> None:
        self.processor, self.size_hw, self.stability_offset = processor, size_hw, stability_offset
        self._logits: list[CutOut] = []
        self._scores: list[FloatArray] = []
        self._bounds: list[BoxBounds] = []

    def add(self, low_res: Logits, scores: FloatArray) -> None:
        """Add candidates: low-res logits [K, h, w] and predicted IoU, float32 [K]."""
        self._logits += cut_out(low_res, self.stability_offset)
        self._scores.append(scores)
        self._bounds.append(bound_boxes(low_res, self.processor.preprocessing, self.size_hw))

    def choose(self, accept: Callable[[MaskMeasures], BoolArray], iou_thresh: float) -> Chosen:
        """Filter the candidates and apply greedy non-maximum suppression on boxes.

        Args:
            accept: a filter from the measures of K masks to bool [K].
            iou_thresh: of two accepted masks with a higher IoU of their boxes, the one with the higher score is kept.
        """
        inner, outer = (np.concatenate(boxes) for boxes in zip(*self._bounds, strict=True))
        kept: list[int] = []
        stability: list[float] = []
        boxes: list[FloatArray] = []
        alive = np.ones(len(inner), dtype=np.bool_)
        for some in self._best_first(alive):
            measures = self._measure(some)
            good = accept(measures)
            for row in np.flatnonzero(good):
                box = measures.boxes_xyxy[row]
                if boxes and overlap(box, np.array(boxes), iou_thresh).any():
                    continue
                kept.append(some[row])
                stability.append(float(measures.stability[row]))
                boxes.append(box)
                alive &= ~overlap(box, inner, iou_thresh, outer)
        return Chosen(
            np.array(kept, dtype=np.int64),
            tuple(self._logits[index].restored() for index in kept),
            np.array(stability, dtype=np.float32),
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
        )

    def _best_first(self, alive: BoolArray) -> Iterator[list[int]]:
        """Yield batches of candidate indices by descending score, without suppressed candidates."""
        order = np.argsort(-np.concatenate(self._scores), kind="stable")
        on_cpu = all(isinstance(logits.values, np.ndarray) for logits in self._logits[:1])
        together = _MEASURED_AT_ONCE["cpu" if on_cpu else "gpu"]
        while len(order):
            order = order[alive[order]]
            some, order = order[:together], order[together:]
            if len(some):
                yield some.tolist()

    def _measure(self, some: list[int]) -> MaskMeasures:
        low_res = restore([self._logits[index] for index in some])
        return self.processor.measure(low_res, self.size_hw, self.stability_offset)
