"""Instances to and from the dictionaries of SA-1B's JSON files.

Boxes in these files are x y width height, where width and height are the differences of the last and the first column
and row: a mask of one pixel is 0 wide and 0 high. The official `amg.py` writes boxes in the same way. This module is
the only one that handles this convention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from segany.core.arrays import FloatArray
from segany.core.errors import InstancesError
from segany.core.instance import NO_ID
from segany.core.instances import Instances
from segany.core.rle import box_xyxy
from segany.data.annotations import checked_size, encode_segmentations
from segany.data.formats.coco import FORM_ERRORS, annotation_ids, generator_columns, generator_fields, parse_id
from segany.data.formats.writing import FormatOptions, json_bytes
from segany.data.item import AnnotatedImage

NOT_SA1B = (
    'This is no annotation file of SA-1B: that has "image" with "height" and "width", and "annotations" with a '
    '"segmentation" each'
)


def to_sa1b(instances: Instances, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
    """The dictionary of SA-1B's JSON file for an image.

    Boxes are those of the masks. `predicted_iou`, `stability_score`, `point_coords` and `crop_box` are written if the
    instances have these columns. `id` is the `annotation_id`, or a number from 1. The format does not hold categories.

    Args:
        instances: the instances.
        file_name: file name of the image.
        image_id: id of the image.
    """
    height, width = instances.size_hw
    annotations = [
        {
            "id": number,
            "segmentation": instance.rle,
            "bbox": box.tolist(),
            "area": instance.area,
            **generator_fields(instance),
        }
        for number, instance, box in zip(
            annotation_ids(instances), instances, official_boxes_xywh(instances), strict=True
        )
    ]
    image = {"image_id": image_id, "width": width, "height": height, "file_name": file_name}
    return {"image": image, "annotations": annotations}


def from_sa1b(data: Mapping[str, Any]) -> Instances:
    """The instances of a JSON file of the SA-1B dataset, source "import".

    Boxes are those of the masks, half-open, and scores the predicted IoU. The columns are `annotation_id`, and
    `predicted_iou`, `stability_score`, `point_xy` and `crop_box_xyxy` where all annotations have them.

    Args:
        data: the dictionary, such as `json.load` returns.

    Raises:
        InstancesError: a field is missing, or a mask is damaged or not of the size of the image.
    """
    try:
        size_hw = checked_size(data["image"]["height"], data["image"]["width"])
        items = [dict(item) for item in data["annotations"]]
        segmentations = [item["segmentation"] for item in items]
    except FORM_ERRORS as error:
        raise InstancesError(f"{NOT_SA1B} ({type(error).__name__}: {error}).") from error
    encoded = encode_segmentations(segmentations, size_hw)
    items = [item for item, rle in zip(items, encoded, strict=True) if rle is not None]
    columns = generator_columns(items)
    ids = [parse_id(item.get("id")) for item in items]
    if ids and NO_ID not in ids:
        columns["annotation_id"] = np.array(ids, dtype=np.int64)
    rles = [rle for rle in encoded if rle is not None]
    return Instances(
        [rle["counts"] for rle in rles],
        size_hw,
        boxes_xyxy=[box_xyxy(rle) for rle in rles],  # they are checked already
        scores=columns.get("predicted_iou"),
        columns=columns,
    )


def encode_sa1b(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A JSON file in the format of SA-1B."""
    image_id = 1 if annotated.image_id is None else annotated.image_id
    yield "_sa1b.json", json_bytes(to_sa1b(annotated.instances, annotated.file_name, image_id))


def official_boxes_xywh(instances: Instances) -> FloatArray:
    """The boxes of the masks as in the official code, float32 [N, 4]; zeros for an empty mask."""
    boxes = np.array(instances.mask_boxes_xyxy)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - boxes[:, :2] - 1, 0)
    return boxes
