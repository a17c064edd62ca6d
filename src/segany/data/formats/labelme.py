"""Instances to and from the JSON files of LabelMe, one an image.

A mask of one part without holes is a shape "polygon" along the edges of its pixels; one of several parts is a polygon
for each, with the same `group_id`, which is how LabelMe marks shapes of one object. A mask with holes is a shape
"mask", which LabelMe has from version 5.2 on: a PNG of its bounding box. All of them are exact.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import ImageError, InstancesError
from segany.core.instance import NO_ID, Category, Instance
from segany.core.instances import Instances
from segany.core.polygons import Polygon, mask_to_polygons, polygons_to_mask
from segany.core.rle import decode_crop, encode_masks
from segany.data.annotations import check_path_length, checked_size
from segany.data.formats.coco import FORM_ERRORS, NO_CLASS
from segany.data.formats.writing import png_bytes
from segany.imaging.image import decode_image

VERSION = "5.5.0"
"""The version of LabelMe whose form is written."""

CIRCLE_CORNERS = 72
"""Corners of the polygon that stands for a circle."""

NOT_LABELME = 'This is no file of LabelMe: that has "shapes" with a "label" and "points" each'

_Shape = dict[str, Any]


def to_labelme(instances: Instances, file_name: str = "", attributes: Sequence[Mapping[str, Any]] = ()) -> _Shape:
    """The dictionary of LabelMe's JSON file for an image.

    Instances without a class have the label "object". `annotation_id`, `iscrowd` and `attributes` are written as
    fields of the shapes, which LabelMe keeps. Empty masks, scores and other columns are left out.

    Args:
        instances: the instances.
        file_name: path of the image, from the folder of the JSON file.
        attributes: of each instance; JSON values.
    """
    height, width = instances.size_hw
    shapes: list[_Shape] = []
    groups = 0
    for index, instance in enumerate(instances):
        own = _shapes(instance)
        if len(own) > 1:
            groups += 1
        for shape in own:
            shape["group_id"] = groups if len(own) > 1 else None
            if attributes and attributes[index]:
                shape["attributes"] = dict(attributes[index])
            shapes.append(shape)
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def from_labelme(data: Mapping[str, Any], size_hw: SizeHW | None = None) -> Instances:
    """The instances of a JSON file of LabelMe, source "import".

    Polygons, rectangles, circles and masks have an area; points and lines are left out, see `shapes_without_area`.
    Shapes of the same label and `group_id` are one instance. Categories are numbered from 1 in the order of their
    labels' first shapes. The columns are `shape`, the place in the file of the first shape of each, and where all have
    them `annotation_id` and `iscrowd`.

    Args:
        data: the dictionary, such as `json.load` returns.
        size_hw: of the image, where the file does not say.

    Raises:
        InstancesError: a field is missing, a shape is damaged, or the image is of another size.
    """
    try:
        said = size_hw
        if said is None or data.get("imageHeight"):
            said = checked_size(data["imageHeight"], data["imageWidth"])
        groups = _grouped(data["shapes"])
        ids: dict[str, int] = {}
        counts = []
        for shapes in groups.values():
            mask = np.zeros(said, dtype=np.bool_)
            for _, shape in shapes:
                mask |= _mask(shape, said)
            counts.append(encode_masks(mask)[0]["counts"])
            ids.setdefault(str(shapes[0][1]["label"]), len(ids) + 1)
        firsts = [shapes[0] for shapes in groups.values()]
        columns: dict[str, npt.ArrayLike] = {"shape": np.array([place for place, _ in firsts], dtype=np.int64)}
        for name, dtype in (("annotation_id", np.int64), ("iscrowd", np.bool_)):
            if firsts and all(shape.get(name) is not None for _, shape in firsts):
                columns[name] = np.array([int(shape[name]) for _, shape in firsts]).astype(dtype)
        return Instances(
            counts,
            said,
            category_ids=np.array([ids[str(shape["label"])] for _, shape in firsts], dtype=np.int64),
            categories=[Category(number, label) for label, number in ids.items()],
            columns=columns,
        )
    except InstancesError:
        raise
    except FORM_ERRORS as error:
        raise InstancesError(f"{NOT_LABELME} ({type(error).__name__}: {error}).") from error


def shapes_without_area(data: Mapping[str, Any]) -> Counter[str]:
    """How many shapes `from_labelme` leaves out, by their types."""
    types = (str(shape.get("shape_type") or "polygon") for shape in data.get("shapes") or () if isinstance(shape, dict))
    return Counter(kind for kind in types if kind not in _MASKS)


def _grouped(shapes: Any) -> dict[Any, list[tuple[int, _Shape]]]:
    """Shapes with an area and their places in the file, those of one object together."""
    groups: dict[Any, list[tuple[int, _Shape]]] = {}
    for place, shape in enumerate(shapes):
        if (shape.get("shape_type") or "polygon") in _MASKS:
            group = shape.get("group_id")
            groups.setdefault(("alone", place) if group is None else (str(shape["label"]), group), []).append(
                (place, shape)
            )
    return groups


def _shapes(instance: Instance) -> list[_Shape]:
    crop, (x, y) = decode_crop(instance.rle)
    if not crop.size:
        return []
    facts: _Shape = {"label": NO_CLASS if instance.category is None else instance.category.name}
    polygons = mask_to_polygons(crop, (x, y))
    if any(polygon.holes for polygon in polygons):
        height, width = crop.shape
        corners = [[x, y], [x + width - 1, y + height - 1]]
        png = base64.b64encode(png_bytes(crop.astype(np.uint8))).decode("ascii")
        shapes = [{**facts, "points": corners, "shape_type": "mask", "mask": png}]
    else:
        shapes = [
            {**facts, "points": polygon.exterior.astype(np.int64).tolist(), "shape_type": "polygon", "mask": None}
            for polygon in polygons
        ]
    for shape in shapes:
        shape.update(description="", flags={})
        if instance.columns.get("annotation_id", NO_ID) != NO_ID:
            shape["annotation_id"] = int(instance.columns["annotation_id"])
        if "iscrowd" in instance.columns:
            shape["iscrowd"] = int(instance.columns["iscrowd"])
    return shapes


def _mask(shape: _Shape, size_hw: SizeHW) -> BoolArray:
    kind = shape.get("shape_type") or "polygon"
    points = np.asarray(shape["points"], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("points must be a list of x, y")
    if len(points) < 2 and kind != "polygon":
        raise ValueError(f"a {kind} has two points")
    if np.abs(points).max(initial=0) > 2 * max(size_hw):
        raise ValueError("a point lies far outside of the image")
    if kind == "mask":
        return _placed(shape["mask"], points, size_hw)
    ring = _RINGS[kind](points)
    if len(ring) < 3:
        return np.zeros(size_hw, dtype=np.bool_)
    check_path_length([ring])
    return polygons_to_mask([Polygon(ring)], size_hw)


def _placed(png: Any, points: npt.NDArray[np.float64], size_hw: SizeHW) -> BoolArray:
    """A mask whose file has its bounding box alone, of which the points are the first and the last pixel."""
    left, top, right, bottom = points[:2].astype(np.int64).ravel().tolist()
    try:
        crop = np.asarray(decode_image(base64.b64decode(png, validate=True), size_hw[0] * size_hw[1]).convert("L")) != 0
    except (binascii.Error, ImageError) as error:
        raise ValueError(f"a mask is no PNG: {error}") from error
    if crop.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(f"a mask is {crop.shape[1]} x {crop.shape[0]}, which is not the size of its box")
    if min(left, top) < 0 or right >= size_hw[1] or bottom >= size_hw[0]:
        raise ValueError("a mask leads out of the image")
    mask = np.zeros(size_hw, dtype=np.bool_)
    mask[top : bottom + 1, left : right + 1] = crop
    return mask


def _rectangle(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    (x0, y0), (x1, y1) = points[0], points[1]
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _circle(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of its center and a point on its edge."""
    radius = float(np.hypot(*(points[1] - points[0])))
    turns = np.arange(CIRCLE_CORNERS) * (2 * np.pi / CIRCLE_CORNERS)
    return np.asarray(points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1))


_RINGS = {"polygon": lambda points: points, "rectangle": _rectangle, "circle": _circle}
_MASKS = frozenset([*_RINGS, "mask"])
