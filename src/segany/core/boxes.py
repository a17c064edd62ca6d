"""Bounding boxes: IoU, non-maximum suppression, and crop edges."""

from __future__ import annotations

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, IntArray, SizeHW


def mask_box(mask: BoolArray) -> tuple[int, int, int, int] | None:
    """Return the half-open box x0 y0 x1 y1 of a mask, bool [H, W]; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else None


def box_areas(boxes_xyxy: FloatArray) -> FloatArray:
    """Return the areas, float32 [K], of boxes [K, 4]."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def nms(boxes_xyxy: FloatArray, scores: FloatArray, iou_thresh: float) -> IntArray:
    """Greedy non-maximum suppression.

    Args:
        boxes_xyxy: float32 [K, 4].
        scores: float32 [K]. Of two boxes with an IoU above `iou_thresh`, the one with the higher score is kept; of
            equal scores, the first.
        iou_thresh: in 0..1.

    Returns:
        int64, the indices of the kept boxes, highest score first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[~overlap(boxes_xyxy[best], boxes_xyxy[waiting], iou_thresh)]
    return np.array(kept, dtype=np.int64)


def overlap(
    box_xyxy: FloatArray, boxes_xyxy: FloatArray, iou_thresh: float, outer_xyxy: FloatArray | None = None
) -> BoolArray:
    """Tell which boxes have an IoU with a box above a threshold.

    Args:
        box_xyxy: float32 [4].
        boxes_xyxy: float32 [K, 4].
        iou_thresh: in 0..1.
        outer_xyxy: float32 [K, 4]. Where it is given, each box is known only to contain `boxes_xyxy` and to lie
            within `outer_xyxy`, and the lower bound of its IoU is compared with the threshold.

    Returns:
        bool [K]. Boxes without area overlap nothing, not even each other.
    """
    shared = _shared_areas(box_xyxy, boxes_xyxy)
    union = box_areas(box_xyxy[None]) + box_areas(boxes_xyxy if outer_xyxy is None else outer_xyxy) - shared
    return np.asarray(shared > iou_thresh * union)


def box_iou(box_xyxy: FloatArray, boxes_xyxy: FloatArray) -> FloatArray:
    """Return the IoU, float32 [K], of a box [4] with boxes [K, 4]; 0 where neither has any area."""
    shared = _shared_areas(box_xyxy, boxes_xyxy)
    union = box_areas(box_xyxy[None]) + box_areas(boxes_xyxy) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _shared_areas(box_xyxy: FloatArray, boxes_xyxy: FloatArray) -> FloatArray:
    top_left = np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    bottom_right = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:])
    return np.asarray(np.prod(np.clip(bottom_right - top_left, 0, None), axis=1))


def is_box_near_crop_edge(
    boxes_xyxy: FloatArray, crop_xyxy: tuple[int, int, int, int], size_hw: SizeHW, tolerance: float = 20.0
) -> BoolArray:
    """Tell which boxes touch an edge of their crop that is not an edge of the image: the crop cuts the object off.

    Args:
        boxes_xyxy: float32 [K, 4], in pixels of the image.
        crop_xyxy: box of the crop, in pixels of the image.
        size_hw: size of the image.
        tolerance: distance in pixels within which a box touches an edge.

    Returns:
        bool [K].
    """
    image = np.array([0, 0, size_hw[1], size_hw[0]], dtype=np.float32)
    at_crop = np.abs(boxes_xyxy - np.array(crop_xyxy, dtype=np.float32)) <= tolerance
    at_image = np.abs(boxes_xyxy - image) <= tolerance
    return np.asarray((at_crop & ~at_image).any(axis=1))
