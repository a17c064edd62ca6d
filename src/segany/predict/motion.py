"""Motion-aware tracking without training (SAMURAI, section 4).

A Kalman filter predicts the bounding box of an object. Candidate masks are scored by their overlap with that box and by
their predicted IoU, and only frames with reliable masks are selected from the memory bank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segany.core.arrays import MASK_THRESHOLD, FloatArray
from segany.core.boxes import box_iou, mask_box

if TYPE_CHECKING:
    from torch import Tensor

MOTION_WEIGHT = 0.15
"""Weight of the IoU with the Kalman-filtered box in the score of a candidate; the rest is that of the predicted IoU."""

STABLE_FRAMES = 15
"""Consecutive frames in which the object must be found before the motion is used for scores."""

STABLE_IOU = 0.3
"""Predicted IoU above which an object counts as found."""

MEMORY_IOU = 0.5
"""Predicted IoU above which a frame is selected from the memory bank."""

_POSITION_NOISE = 1 / 20
_VELOCITY_NOISE = 1 / 160
"""Standard deviations per frame relative to the side of the box, as in SORT and its successors."""


class KalmanBoxFilter:
    """A Kalman filter with constant velocity on the center and the size of a bounding box."""

    def __init__(self, box_xyxy: FloatArray) -> None:
        self.state = np.concatenate([_to_center(box_xyxy), np.zeros(4)])
        self.covariance = np.diag(self._noise(2 * _POSITION_NOISE, 10 * _VELOCITY_NOISE) ** 2)

    def predict(self) -> FloatArray:
        """Advance by one frame; returns the predicted box, x0 y0 x1 y1 [4]."""
        step = np.eye(8)
        step[:4, 4:] = np.eye(4)
        noise = np.diag(self._noise(_POSITION_NOISE, _VELOCITY_NOISE) ** 2)
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + noise
        center, size = self.state[:2], np.maximum(self.state[2:4], 0)
        return np.concatenate([center - size / 2, center + size / 2]).astype(np.float32)

    def update(self, box_xyxy: FloatArray) -> None:
        """Update the state with the measured box, float32 [4]."""
        noise = np.diag(self._noise(_POSITION_NOISE, _VELOCITY_NOISE)[:4] ** 2)
        innovation = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(innovation, self.covariance[:4]).T  # [8, 4]
        self.state = self.state + gain @ (_to_center(box_xyxy) - self.state[:4])
        self.covariance = self.covariance - gain @ innovation @ gain.T

    def _noise(self, position: float, velocity: float) -> npt.NDArray[np.float64]:
        sides = np.maximum(np.tile(self.state[2:4], 2), 1)
        return np.concatenate([position * sides, velocity * sides])


class Motion:
    """The motion of one object in one direction of tracking."""

    def __init__(self) -> None:
        self._filter: KalmanBoxFilter | None = None
        self._stable = 0

    def choose(self, low_res: FloatArray, iou: FloatArray) -> int:
        """Choose a candidate mask and update the filter with it.

        Args:
            low_res: mask logits [M, h, w].
            iou: predicted IoU [M].

        Returns:
            The index of the candidate.
        """
        best = int(iou.argmax())
        if self._filter is None or self._stable == 0:
            self._begin(low_res[best])
            return best
        expected = self._filter.predict()
        if self._stable >= STABLE_FRAMES:
            boxes = np.array([_box(logits) for logits in low_res], dtype=np.float32)
            best = int((MOTION_WEIGHT * box_iou(expected, boxes) + (1 - MOTION_WEIGHT) * iou).argmax())
        box = _box(low_res[best])
        if iou[best] > STABLE_IOU and box.any():
            self._filter.update(box)
            self._stable += 1
        else:
            self._stable = 0
        return best

    def restart(self, low_res: Tensor | None) -> None:
        """Restart from the mask logits [h, w] of a prompted frame."""
        self._filter, self._stable = None, 0
        if low_res is not None:
            self._begin(low_res.cpu().numpy())

    def _begin(self, logits: FloatArray) -> None:
        box = _box(logits)
        if box.any():
            self._filter, self._stable = KalmanBoxFilter(box), 1


def _box(logits: FloatArray) -> FloatArray:
    """The half-open box x0 y0 x1 y1 [4] of a mask; zeros for an empty mask."""
    return np.array(mask_box(logits > MASK_THRESHOLD) or (0, 0, 0, 0), dtype=np.float32)


def _to_center(box_xyxy: FloatArray) -> npt.NDArray[np.float64]:
    box = box_xyxy.astype(np.float64)
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
