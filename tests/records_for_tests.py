"""Mask records made of masks."""

from __future__ import annotations

import numpy as np

from segany.core.rle import encode_masks
from segany.data.formats.records import MaskRecord, MaskRecords

SIZE_HW = (30, 40)


def make_record(mask: np.ndarray, score: float = 0.9) -> MaskRecord:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (0.0, 0.0, 0.0, 0.0)
    if rows.size:
        box = (float(columns[0]), float(rows[0]), float(np.ptp(columns)), float(np.ptp(rows)))
    return MaskRecord(
        size_hw=mask.shape,
        rle_counts=encode_masks(mask)[0]["counts"],
        area=int(mask.sum()),
        bbox_xywh=box,
        predicted_iou=score,
        stability_score=0.97,
        point_xy=(12.5, 3.25),
        crop_box_xywh=(0, 0, mask.shape[1], mask.shape[0]),
    )


def make_records(masks: np.ndarray) -> MaskRecords:
    """Records in the order of the masks."""
    return MaskRecords(tuple(make_record(m, 1 - i / 100) for i, m in enumerate(masks)), masks.shape[1:])


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask
