"""A folder of mask images with a table, as the official `amg.py` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from segany.core.arrays import FloatArray
from segany.core.instance import Instance
from segany.data.formats.coco import generator_fields
from segany.data.formats.sa1b import official_boxes_xywh
from segany.data.formats.writing import FormatOptions, png_bytes
from segany.data.item import AnnotatedImage

METADATA_COLUMNS = (
    "id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y", "predicted_iou",
    "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h",
)  # fmt: skip
"""The columns of the metadata.csv that the official `amg.py` writes."""


def encode_masks_png(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A grayscale PNG for each mask, 255 inside and 0 outside, and a table of the other values.

    Fields of the table are empty where instances have no value. The table does not hold categories and ids.
    """
    instances = annotated.instances
    for index, instance in enumerate(instances):
        yield f"_masks/{index}.png", png_bytes(instance.mask.astype(np.uint8) * np.uint8(255))
    boxes = official_boxes_xywh(instances)
    rows = [METADATA_COLUMNS, *(_row(index, *pair) for index, pair in enumerate(zip(instances, boxes, strict=True)))]
    yield "_masks/metadata.csv", "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _row(index: int, instance: Instance, box_xywh: FloatArray) -> tuple[Any, ...]:
    fields = generator_fields(instance)
    (point_xy,) = fields.get("point_coords", [("", "")])
    scores = (fields.get("predicted_iou", ""), fields.get("stability_score", ""))
    return (index, instance.area, *box_xywh.tolist(), *point_xy, *scores, *fields.get("crop_box", [""] * 4))
