"""Whether two implementations gave the same answer. A fast wrong answer is worth nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_MASK_IOU = 0.999
"""The least IoU of two masks that count as the same."""

MAX_DIFFERENCE = {
    "embedding": 1e-3,
    "detail_0": 1e-3,
    "detail_1": 1e-3,
    "scores": 1e-3,
    "low_res_logits": 5e-2,
    "mask_logits": 5e-2,
}
"""The largest difference of two numbers that count as the same. Embeddings are near 1, logits reach tens."""


@dataclass(frozen=True)
class Check:
    """One pair of outputs compared.

    Attributes:
        output: its name.
        measure: "mask IoU" (of the worst pair of masks) or "difference" (the largest).
        value: what was found; None where the outputs cannot be compared.
        limit: what it is held to.
        passed: whether it holds.
        problem: why not, in words.
    """

    output: str
    measure: str
    value: float | None
    limit: float
    passed: bool
    problem: str = ""


def compare(ours: Mapping[str, npt.NDArray[Any]], peer: Mapping[str, npt.NDArray[Any]]) -> list[Check]:
    """A check for each output of either side; one that only one side has is a failed one."""
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
    """Intersection over union of two masks; 1 when both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
