"""Motion-aware memory for tracking, without training (SAMURAI, section 4).

A Kalman filter follows the box of an object. Where several candidate masks are plausible it prefers the one
that is where the object should be, and only frames in which the object was seen well are remembered.
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
"""Share of the predicted box in the score of a candidate; the rest is the predicted IoU."""

STABLE_FRAMES = 15
"""Frames in a row that an object was found in before its motion counts."""

STABLE_IOU = 0.3
"""Predicted IoU from which on an object counts as found."""

MEMORY_IOU = 0.5
"""Predicted IoU above which a frame is worth remembering."""

_POSITION_NOISE = 1 / 20
_VELOCITY_NOISE = 1 / 160
"""Standard deviations a frame, as a share of the box's side: the usual ones of box trackers."""


class BoxFilter:
    """A Kalman filter with constant velocity on center and size of a box."""

    def __init__(self, box_xyxy: FloatArray) -> None:
        self.state = np.concatenate([_to_center(box_xyxy), np.zeros(4)])
        self.covariance = np.diag(self._noise(2 * _POSITION_NOISE, 10 * _VELOCITY_NOISE) ** 2)

    def predict(self) -> FloatArray:
        """Go on by a frame: the box expected there, [4]."""
        step = np.eye(8)
        step[:4, 4:] = np.eye(4)
        noise = np.diag(self._noise(_POSITION_NOISE, _VELOCITY_NOISE) ** 2)
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + noise
        center, size = self.state[:2], np.maximum(self.state[2:4], 0)
        return np.concatenate([center - size / 2, center + size / 2]).astype(np.float32)

    def update(self, box_xyxy: FloatArray) -> None:
        """Correct by the box that was found."""
        noise = np.diag(self._noise(_POSITION_NOISE, _VELOCITY_NOISE)[:4] ** 2)
        innovation = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(innovation, self.covariance[:4]).T  # [8, 4]
        self.state = self.state + gain @ (_to_center(box_xyxy) - self.state[:4])
        self.covariance = self.covariance - gain @ innovation @ gain.T

    def _noise(self, position: float, velocity: float) -> npt.NDArray[np.float64]:
        sides = np.maximum(np.tile(self.state[2:4], 2), 1)
        return np.concatenate([position * sides, velocity * sides])


class Motion:
    """What is known of one object's motion in one direction of time."""

    def __init__(self) -> None:
        self._filter: BoxFilter | None = None
        self._stable = 0

    def choose(self, low_res: FloatArray, iou: FloatArray) -> int:
        """The candidate that is the object.

        Args:
            low_res: logits [M, h, w].
            iou: predicted IoU [M].

        Returns:
            Its index.
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
        """Begin anew where the object certainly is, [h, w]: in a frame in which it was prompted."""
        self._filter, self._stable = None, 0
        if low_res is not None:
            self._begin(low_res.cpu().numpy())

    def _begin(self, logits: FloatArray) -> None:
        box = _box(logits)
        if box.any():
            self._filter, self._stable = BoxFilter(box), 1


def _box(logits: FloatArray) -> FloatArray:
    """Corners [4] of what is above the threshold, the last ones past it; zeros where nothing is."""
    return np.array(mask_box(logits > MASK_THRESHOLD) or (0, 0, 0, 0), dtype=np.float32)


def _to_center(box_xyxy: FloatArray) -> npt.NDArray[np.float64]:
    box = box_xyxy.astype(np.float64)
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
