"""Instances to and from GeoJSON in pixel coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import InstancesError
from segany.core.instance import NO_ID, Category, Instance
from segany.core.instances import Instances
from segany.core.polygons import Polygon, RingArray, polygons_to_mask
from segany.core.rle import encode_masks
from segany.data.annotations import check_path_length, checked_size
from segany.data.formats.coco import FORM_ERRORS, MAX_COORDINATE, annotation_ids
from segany.data.formats.writing import FormatOptions, bbox_xywh, instance_facts, json_bytes
from segany.data.item import AnnotatedImage

_OWN_PROPERTIES = ("object", "score", "area", "bbox_xywh", "category", "category_id", "supercategory", "source")


def to_geojson(instances: Instances, file_name: str = "") -> dict[str, Any]:
    """GeoJSON with a MultiPolygon for each instance, including its parts and holes.

    Coordinates are pixels of the image, x to the right and y down, with (0, 0) at the corner of the first pixel.
    Polygons follow the edges of pixels and enclose the mask exactly. Properties are object, score, area, box, category
    and the optional columns. `id` is the `annotation_id`, or a number from 1.
    """
    height, width = instances.size_hw
    features = [
        {
            "type": "Feature",
            "id": number,
            "properties": _properties(instance),
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [[_closed(ring) for ring in polygon.rings] for polygon in instance.polygons],
            },
        }
        for number, instance in zip(annotation_ids(instances), instances, strict=True)
    ]
    image = {"file_name": file_name, "width": width, "height": height}
    return {"type": "FeatureCollection", "image": image, "features": features}


def from_geojson(data: Mapping[str, Any]) -> Instances:
    """Convert the result of `to_geojson` back to instances with the source "import".

    They are the same, except that categories without instances are lost.

    Raises:
        InstancesError: the data has another form.
    """
    try:
        size_hw = checked_size(data["image"]["height"], data["image"]["width"])
        items = [feature["properties"] for feature in data["features"]]
        masks = [_filled(feature["geometry"]["coordinates"], size_hw) for feature in data["features"]]
        boxes = np.array([item["bbox_xywh"] for item in items], dtype=np.float64).reshape(-1, 4)
        categories = {
            item["category_id"]: Category(item["category_id"], item["category"], item.get("supercategory", ""))
            for item in items
            if "category_id" in item
        }
        shared = set.intersection(*(set(item) for item in items)) if items else set()
        names = [name for name in (items[0] if items else ()) if name in shared and name not in _OWN_PROPERTIES]
        boxes[:, 2:] += boxes[:, :2].clip(-MAX_COORDINATE, MAX_COORDINATE)
        return Instances(
            [encode_masks(mask)[0]["counts"] for mask in masks],
            size_hw,
            boxes_xyxy=boxes,
            scores=[item.get("score", np.nan) for item in items],
            category_ids=[item.get("category_id", NO_ID) for item in items],
            categories=[categories[number] for number in sorted(categories)],
            object_ids=[item.get("object", NO_ID) for item in items],
            columns={name: np.array([item[name] for item in items]) for name in names},
        )
    except InstancesError:
        raise
    except FORM_ERRORS as error:
        raise InstancesError(
            f'This is no GeoJSON of segany: that has "image" with "height" and "width", and "features" '
            f"({type(error).__name__}: {error})."
        ) from error


def encode_polygons(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """GeoJSON of this image."""
    yield "_polygons.geojson", json_bytes(to_geojson(annotated.instances, annotated.file_name))


def _properties(instance: Instance) -> dict[str, Any]:
    properties = {**instance_facts(instance), "bbox_xywh": bbox_xywh(instance)}
    if instance.category is not None:
        properties["category"] = instance.category.name
        properties["category_id"] = instance.category.id
        if instance.category.supercategory:
            properties["supercategory"] = instance.category.supercategory
    return {**properties, **{name: value for name, value in instance.columns.items() if name not in properties}}


def _filled(coordinates: Any, size_hw: SizeHW) -> BoolArray:
    polygons = [_polygon(rings) for rings in coordinates]
    check_path_length([ring for polygon in polygons for ring in polygon.rings])
    return polygons_to_mask(polygons, size_hw)


def _polygon(rings: Any) -> Polygon:
    exterior, *holes = (np.array(ring[:-1], dtype=np.float64) for ring in rings)
    for ring in (exterior, *holes):
        if ring.ndim != 2 or ring.shape[1] != 2 or not (np.abs(ring) <= MAX_COORDINATE).all():
            raise ValueError("a ring is a list of points x, y within the image")
    return Polygon(exterior, tuple(holes))


def _closed(ring: RingArray) -> list[list[int]]:
    """GeoJSON repeats the first point as the last. All corners are whole numbers."""
    points: list[list[int]] = ring.astype(np.int64).tolist()
    return [*points, points[0]]
