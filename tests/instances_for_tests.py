"""Instances as the automatic mask generator makes them."""

from __future__ import annotations

import numpy as np

from segany.core.instances import Instances

SIZE_HW = (30, 40)


def make_instances(masks: np.ndarray) -> Instances:
    """In the order of the masks, with falling scores."""
    count = len(masks)
    scores = (1 - np.arange(count) / 100).astype(np.float32)
    height, width = masks.shape[1:]
    return Instances.from_masks(
        masks,
        scores=scores,
        sources="automatic",
        columns={
            "predicted_iou": scores,
            "stability_score": np.full(count, 0.97, dtype=np.float32),
            "point_xy": np.tile(np.float32([12.5, 3.25]), (count, 1)),
            "crop_box_xyxy": np.tile(np.array([0, 0, width, height]), (count, 1)),
        },
    )


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask
