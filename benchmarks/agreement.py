"""Comparison of the outputs of two implementations: a time counts only if the outputs agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_MASK_IOU = 0.999
"""Lowest IoU of two masks that count as equal."""

MAX_DIFFERENCE = {
    "embedding": 1e-3,
    "detail_0": 1e-3,
    "detail_1": 1e-3,
    "scores": 1e-3,
    "low_res_logits": 5e-2,
    "mask_logits": 5e-2,
}
"""Largest difference of two numbers that count as equal. Embeddings are near 1, logits reach tens."""


@dataclass(frozen=True)
class Check:
    """The comparison of one output.

    Attributes:
        output: name of the output.
        measure: "mask IoU" (the lowest of all pairs of masks) or "difference" (the largest).
        value: the measured value; None if the outputs cannot be compared.
        limit: the limit of the value.
        passed: whether the value is within the limit.
        problem: the reason, if it did not pass.
    """

    output: str
    measure: str
    value: float | None
    limit: float
    passed: bool
    problem: str = ""


def compare(ours: Mapping[str, npt.NDArray[Any]], peer: Mapping[str, npt.NDArray[Any]]) -> list[Check]:
    """Compare all outputs of both sides. An output that only one side has is a failed check."""
    return [_compare_output(name, ours.get(name), peer.get(name)) for name in sorted({*ours, *peer})]


def _compare_output(name: str, ours: npt.NDArray[Any] | None, peer: npt.NDArray[Any] | None) -> Check:
    are_masks = any(array is not None and array.dtype == np.bool_ for array in (ours, peer))
    measure, limit = ("mask IoU", MIN_MASK_IOU) if are_masks else ("difference", MAX_DIFFERENCE.get(name, 0.0))
    if ours is None or peer is None:
        return Check(name, measure, None, limit, False, f"{name} is missing on one side")
    if ours.shape != peer.shape or (ours.dtype == np.bool_) != (peer.dtype == np.bool_):
        facts = f"{list(ours.shape)} {ours.dtype} against {list(peer.shape)} {peer.dtype}"
        return Check(name, measure, None, limit, False, f"{name} is {facts}")
    if are_masks:
        if not peer.any() and not ours.any():
            return Check(name, measure, None, limit, False, f"{name} are empty on both sides, which proves nothing")
        value = min(mask_iou(*pair) for pair in zip(ours, peer, strict=True))
        passed = value >= limit
    else:
        value = float(np.abs(ours.astype(np.float64) - peer).max())
        passed = value <= limit  # false for a NaN
    problem = "" if passed else f"{name}: {measure} {value:.6g}, limit {limit:g}"
    return Check(name, measure, value if np.isfinite(value) else None, limit, passed, problem)


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Compute the IoU of two masks, bool [H, W]; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
