"""The calibrated confidence of predicted masks: the probability that a mask is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segany.core.arrays import FloatArray
from segany.core.errors import check
from segany.models.configs import register

_EDGE = 1e-3
"""Scores are clipped to this distance from 0 and 1, where their logits are infinite."""


@register
@dataclass(frozen=True)
class Calibration:
    """A logistic regression on the scores of a mask, which `segany.evaluate.calibration.calibrate` fits (Platt, 1999).

    Attributes:
        weights: weights of the logits of detection score, predicted IoU and stability score; none is negative.
        bias: the bias.
        threshold: confidence from which on masks have the wanted precision; None if no confidence has it.
        precision: the wanted precision, in 0..1: the share of masks whose IoU with an object is at least `min_iou`.
        min_iou: the IoU from which on a mask is right, in 0..1.
        weights_id: digest of the weights of the model that predicted the masks.
        objects: number of objects that it was fitted on.
        masks: number of predicted masks that it was fitted on.
        measured_precision: share of right ones among the masks from `threshold` on; None without them.
        measured_share: share of the objects that have a right mask from `threshold` on.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float | None
    precision: float
    min_iou: float
    weights_id: str
    objects: int
    masks: int
    measured_precision: float | None
    measured_share: float

    def __post_init__(self) -> None:
        check(len(self.weights) == 3 and min(self.weights) >= 0, f"weights are three from 0 on, got {self.weights}.")
        for name in ("threshold", "precision", "min_iou", "measured_precision", "measured_share"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"{name} must lie in 0..1, got {value}.")

    def confidence(
        self, detection_score: FloatArray, predicted_iou: FloatArray, stability_score: FloatArray
    ) -> FloatArray:
        """The probability that masks are right, float32 [N], from their scores [N] each."""
        logits = score_logits(detection_score, predicted_iou, stability_score) @ np.array(self.weights) + self.bias
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def score_logits(*scores: FloatArray) -> npt.NDArray[np.float64]:
    """The logits of scores in 0..1, [N] each: float64 [N, K]."""
    clipped = np.stack(scores, axis=-1).astype(np.float64).clip(_EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)))
