"""Instances to and from `Detections` of the supervision library."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import SizeHW
from segany.core.errors import InstancesError, MissingExtraError
from segany.core.instance import NO_ID, Category, Source
from segany.core.instances import Instances


def to_supervision(instances: Instances) -> Any:
    """Convert instances to `supervision.Detections` with boxes, masks, confidence, class ids, tracker ids and columns.

    `confidence` holds the scores, `tracker_id` the object ids, and `data` the optional columns and `class_name`.
    `confidence`, `class_id` and `tracker_id` are None if no instance has a value.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    try:
        supervision = importlib.import_module("supervision")
    except ImportError as error:
        raise MissingExtraError("to_supervision needs the library. Install it: pip install supervision") from error
    names = {category.id: category.name for category in instances.categories}
    data: dict[str, npt.NDArray[Any]] = {name: np.array(array) for name, array in instances.columns.items()}
    has_class, has_id = (bool((ids != NO_ID).any()) for ids in (instances.category_ids, instances.object_ids))
    if has_class:
        data["class_name"] = np.array([names.get(category_id, "") for category_id in instances.category_ids.tolist()])
    return supervision.Detections(
        xyxy=np.array(instances.boxes_xyxy),
        mask=instances.masks(),
        confidence=None if np.isnan(instances.scores).all() else np.array(instances.scores),
        class_id=np.array(instances.category_ids) if has_class else None,
        tracker_id=np.array(instances.object_ids) if has_id else None,
        data=data,
    )


def from_supervision(detections: Any, size_hw: SizeHW | None = None, source: Source = "import") -> Instances:
    """Convert `supervision.Detections` with masks to instances.

    Args:
        detections: the detections. Names in `data["class_name"]` become the names of categories.
        size_hw: size of the image, which is needed for empty detections.
        source: source of all instances.

    Raises:
        InstancesError: the detections have no masks, or there are none and `size_hw` is not given.
    """
    if not len(detections):
        if size_hw is None:
            raise InstancesError("There are no detections: give the size of the image, size_hw.")
        return Instances.empty(size_hw)
    if detections.mask is None:
        raise InstancesError("The detections have no masks, only boxes. Prompt a model with the boxes first.")
    data = dict(detections.data)
    names = data.pop("class_name", None)
    categories: dict[int, Category] = {}
    if detections.class_id is not None:
        for row, category_id in enumerate(np.asarray(detections.class_id).tolist()):
            if category_id != NO_ID:
                categories.setdefault(
                    category_id, Category(category_id, str(category_id if names is None else names[row]))
                )
    return Instances.from_masks(
        np.asarray(detections.mask, dtype=np.bool_),
        boxes_xyxy=detections.xyxy,
        scores=detections.confidence,
        category_ids=detections.class_id,
        categories=[categories[category_id] for category_id in sorted(categories)],
        object_ids=detections.tracker_id,
        sources=source,
        columns=data,
    )
