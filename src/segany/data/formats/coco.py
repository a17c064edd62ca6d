"""Instances to and from the dictionaries of COCO's and LVIS's instances JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import SizeHW
from segany.core.errors import InstancesError
from segany.core.instance import NO_ID, Category, Instance
from segany.core.instances import Instances
from segany.core.rle import box_xyxy
from segany.data.annotations import checked_size, encode_segmentations
from segany.data.formats.writing import FormatOptions, instance_facts, json_bytes
from segany.data.item import AnnotatedImage

NOT_COCO = (
    'This is no instances file of COCO or LVIS: that has "images" with an "id", "height" and "width" each, and '
    '"annotations" with an "image_id" and a "segmentation" each'
)
FORM_ERRORS = (TypeError, KeyError, AttributeError, ValueError, OverflowError)
"""The exceptions that reading a dictionary of another form raises."""

MAX_DIGITS = 20
"""Largest number of digits of an id that is a string."""

MAX_NUMBER = float(np.finfo(np.float32).max)
"""Largest valid score or area."""

MAX_COORDINATE = 1e9
"""Largest valid coordinate of a box."""

_NO_ATTRIBUTES: Mapping[str, Any] = {}

NO_CLASS = "object"
"""Name of the category for instances without one, because COCO's format requires one."""


def to_coco(instances: Instances, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
    """The COCO dictionary of one image.

    It holds all categories. The id, `iscrowd` and area of an annotation are those of the columns `annotation_id`,
    `iscrowd` and `annotated_area`; by default, the id counts from 1 and the area is that of the mask. `object`,
    `candidate` and `score` are written if instances have them, and so are `predicted_iou`, `stability_score`,
    `point_coords` and `crop_box` (x y width height), as in SA-1B's files. Instances without a class have the category
    "object". Other columns are left out.

    Args:
        instances: the instances.
        file_name: file name of the image.
        image_id: id of the image.
    """
    height, width = instances.size_hw
    categories, no_class_id = _category_table(instances)
    annotations = []
    for number, instance in zip(annotation_ids(instances), instances, strict=True):
        area = instance.columns.get("annotated_area", math.nan)
        annotations.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": no_class_id if instance.category is None else instance.category.id,
                "iscrowd": int(instance.columns.get("iscrowd", False)),
                "bbox": _to_xywh(instance.box_xyxy),
                **instance_facts(instance),
                **({} if math.isnan(area) else {"area": area}),
                "segmentation": instance.rle,
                **generator_fields(instance),
            }
        )
    return {
        "info": {"description": "Masks made with segany"},
        "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
        "categories": categories,
        "annotations": annotations,
    }


def from_coco(data: Mapping[str, Any], image_id: int | None = None) -> Instances:
    """The instances of one image of a COCO or LVIS dictionary, source "import".

    Boxes are those of the annotations, or of the masks where there are none. The columns are `annotation_id`,
    `iscrowd` and `annotated_area`, and those of `to_coco` which every annotation of the image has. Annotations
    without a mask are left out.

    Args:
        data: the dictionary, such as `json.load` returns.
        image_id: which image; may be left out where there is only one.

    Raises:
        InstancesError: the image is not there, a field is missing, or a mask is damaged.
    """
    try:
        images = images_by_id(data)
        annotations = list(data["annotations"])
        categories = read_categories(data)
        wanted = next(iter(images)) if image_id is None and len(images) == 1 else normal_id(image_id)
        if wanted is None:
            raise InstancesError(f"The COCO dictionary has {len(images)} images. Choose one: give its image_id.")
        if wanted not in images:
            raise InstancesError(f"The COCO dictionary has no image with the id {image_id}.")
        size_hw = checked_size(images[wanted]["height"], images[wanted]["width"])
        columns = CocoAnnotations.parse([item for item in annotations if normal_id(item["image_id"]) == wanted])
        return columns.to_instances(size_hw, categories)
    except FORM_ERRORS as error:
        raise InstancesError(f"{NOT_COCO} ({type(error).__name__}: {error}).") from error


def encode_coco(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:  # noqa: ARG001
    """A COCO file of this image only."""
    image_id = 1 if annotated.image_id is None else annotated.image_id
    yield "_coco.json", json_bytes(to_coco(annotated.instances, annotated.file_name, image_id))


def images_by_id(data: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    """The images of a COCO or LVIS dictionary by `normal_id`. Identical entries of an image count once.

    Raises:
        InstancesError: two images have the same id.
        TypeError, KeyError, AttributeError: the dictionary has another form.
    """
    images: dict[Any, Mapping[str, Any]] = {}
    for image in data["images"]:
        number = normal_id(image["id"])
        other = images.setdefault(number, image)
        if other != image:
            names = " and ".join(str(one.get("file_name", one.get("coco_url"))) for one in (other, image))
            raise InstancesError(
                f"Two images have the id {number}: {names}. It is unclear which of them the annotations belong to: "
                "give each an id of its own."
            )
    return images


def normal_id(value: Any) -> Any:
    """The normal form of an id: 7, "7" and 7.0 are the same, because some programs write ids as strings or floats."""
    number = parse_id(value)
    return value if number == NO_ID else number


def read_categories(data: Mapping[str, Any]) -> tuple[Category, ...]:
    """The categories of a COCO or LVIS dictionary, in its order. Of two with the same id, the first counts."""
    found: dict[int, Category] = {}
    for item in data.get("categories") or ():
        number = parse_id(item.get("id"))
        if number != NO_ID:
            category = Category(number, str(item.get("name", number)), str(item.get("supercategory") or ""))
            found.setdefault(category.id, category)
    return tuple(found.values())


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """N annotations with a segmentation, as columns. Masks are encoded only when they are needed.

    Attributes:
        segmentations: N segmentations as in the file, but with polygons as arrays, which take a quarter of the memory.
        columns: arrays [N, ...] by their names in `Instances`.
        attributes: N dictionaries that CVAT and others write, as they are; empty where there are none.
    """

    segmentations: list[Any]
    columns: dict[str, npt.NDArray[Any]]
    attributes: list[Mapping[str, Any]]

    @classmethod
    def parse(cls, annotations: Iterable[Mapping[str, Any]]) -> CocoAnnotations:
        """Convert annotations to columns.

        Raises:
            TypeError, AttributeError: an annotation is not a dictionary.
        """
        items = [item for item in annotations if item.get("segmentation")]
        columns: dict[str, npt.NDArray[Any]] = {
            "category_ids": np.array([parse_id(item.get("category_id")) for item in items], dtype=np.int64),
            "boxes_xyxy": np.array([_from_xywh(item.get("bbox")) for item in items], dtype=np.float32).reshape(-1, 4),
            "annotation_id": np.array([parse_id(item.get("id")) for item in items], dtype=np.int64),
            "iscrowd": np.array([_flag(item.get("iscrowd")) for item in items], dtype=np.bool_),
            "annotated_area": np.array([_number(item.get("area")) for item in items], dtype=np.float64),
        }
        return cls(
            [_compact(item["segmentation"]) for item in items],
            {**columns, **_optional_columns(items)},
            [_attributes(item.get("attributes")) for item in items],
        )

    def __getitem__(self, rows: slice) -> CocoAnnotations:
        """The annotations of a slice, such as those of one image."""
        columns = {name: array[rows] for name, array in self.columns.items()}
        return CocoAnnotations(self.segmentations[rows], columns, self.attributes[rows])

    @property
    def has_objects(self) -> bool:
        """Whether any annotation is not a crowd region."""
        return not self.columns["iscrowd"].all()

    def to_instances(self, size_hw: SizeHW, categories: Sequence[Category]) -> Instances:
        """The instances. An id that no category has becomes a category whose name is that id.

        Raises:
            InstancesError: a mask is damaged, or of another size.
        """
        encoded = encode_segmentations(self.segmentations, size_hw)
        kept = [index for index, rle in enumerate(encoded) if rle is not None]
        columns = {name: values[kept] for name, values in self.columns.items()}
        rles = [rle for rle in encoded if rle is not None]
        boxes = columns.pop("boxes_xyxy")
        for index in np.flatnonzero(np.isnan(boxes[:, 0])):
            boxes[index] = box_xyxy(rles[index])
        category_ids = columns.pop("category_ids")
        unknown = set(category_ids.tolist()) - {category.id for category in categories} - {NO_ID}
        return Instances(
            [rle["counts"] for rle in rles],
            size_hw,
            boxes_xyxy=boxes,
            scores=columns.pop("scores", None),
            category_ids=category_ids,
            categories=(*categories, *(Category(number, str(number)) for number in sorted(unknown))),
            object_ids=columns.pop("object_ids", None),
            columns=columns,
        )


def generator_fields(instance: Instance) -> dict[str, Any]:
    """The additional fields of automatic masks, with their names in the official code and SA-1B."""
    columns = instance.columns
    fields: dict[str, Any] = {}
    if "predicted_iou" in columns:
        fields["predicted_iou"] = columns["predicted_iou"]
    if "point_xy" in columns:
        fields["point_coords"] = [list(columns["point_xy"])]
    if "stability_score" in columns:
        fields["stability_score"] = columns["stability_score"]
    if "crop_box_xyxy" in columns:
        left, top, right, bottom = columns["crop_box_xyxy"]
        fields["crop_box"] = [left, top, right - left, bottom - top]
    return fields


def generator_columns(items: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns [N, ...] of the fields that `generator_fields` writes, if all N annotations have the field."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, key, read, shape in (
        ("predicted_iou", "predicted_iou", _number, (-1,)),
        ("stability_score", "stability_score", _number, (-1,)),
        ("point_xy", "point_coords", _one_point, (-1, 2)),
        ("crop_box_xyxy", "crop_box", _crop_box, (-1, 4)),
    ):
        _add_column(columns, name, items, key, read, shape)
    return columns


def _optional_columns(items: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    columns = generator_columns(items)
    _add_column(columns, "scores", items, "score", _number, (-1,))
    _add_column(columns, "object_ids", items, "object", parse_id, (-1,))
    _add_column(columns, "candidate", items, "candidate", parse_id, (-1,))
    return columns


def _add_column(
    columns: dict[str, npt.NDArray[Any]],
    name: str,
    items: Sequence[Mapping[str, Any]],
    key: str,
    read: Callable[[Any], Any],
    shape: tuple[int, ...],
) -> None:
    if items and all(item.get(key) is not None for item in items):
        columns[name] = np.array([read(item[key]) for item in items]).reshape(shape)


def _category_table(instances: Instances) -> tuple[list[dict[str, Any]], int]:
    """The categories in COCO's format, and the id of the category for instances without a class."""
    table = []
    for category in instances.categories:
        wider = {"supercategory": category.supercategory} if category.supercategory else {}
        table.append({"id": category.id, "name": category.name, **wider})
    ids = {category.name: category.id for category in instances.categories}
    taken = set(ids.values())
    no_class_id = ids.get(NO_CLASS, 1 if 1 not in taken else max(taken) + 1)
    if no_class_id not in taken and (not table or (instances.category_ids == NO_ID).any()):
        table.append({"id": no_class_id, "name": NO_CLASS})
    return table, no_class_id


def annotation_ids(instances: Instances) -> list[int]:
    """The ids from `annotation_id` if all instances have unique ones; otherwise numbers from 1."""
    ids: list[int] = instances.columns.get("annotation_id", np.zeros(0, dtype=np.int64)).tolist()
    is_usable = len(ids) == len(set(ids)) == len(instances) and NO_ID not in ids
    return ids if is_usable else list(range(1, len(instances) + 1))


def _to_xywh(box: tuple[float, float, float, float]) -> list[float]:
    """Convert a box to x y width height, with the fewest decimals from which `_from_xywh` restores it."""
    corners = [float(str(np.float32(number))) for number in box]
    sides = [round(corners[axis + 2] - corners[axis], 6) for axis in (0, 1)]
    short = [*corners[:2], *sides]
    if np.array_equal(np.array(_from_xywh(short), dtype=np.float32), np.array(box, dtype=np.float32)):
        return short
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _from_xywh(bbox: Any) -> tuple[float, float, float, float]:
    """Convert a box, x y width height, to its corners; NaN if it is not a box."""
    if isinstance(bbox, (list, tuple)) and len(bbox) == 4:
        x, y, width, height = (_number(value) for value in bbox)
        is_box = all(abs(value) <= MAX_COORDINATE for value in (x, y, width, height))  # not NaN either
        if is_box and width >= 0 and height >= 0:
            return x, y, x + width, y + height
    return math.nan, math.nan, math.nan, math.nan


def _one_point(coordinates: Any) -> tuple[float, float]:
    ((x, y),) = coordinates
    return float(x), float(y)


def _crop_box(crop_box: Any) -> tuple[int, int, int, int]:
    left, top, width, height = (int(number) for number in crop_box)
    return left, top, left + width, top + height


def parse_id(value: Any) -> int:
    """Convert an id, a number or a string of digits, to an integer from 0; `NO_ID` if it is not an id."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < MAX_DIGITS else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return value if is_id else NO_ID


def _attributes(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) and value else _NO_ATTRIBUTES


def _flag(value: Any) -> bool:
    """Convert a flag, which some programs write as text, to a bool."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "none", "null")
    return bool(value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and abs(value) <= MAX_NUMBER else math.nan


def _compact(segmentation: Any) -> Any:
    """Convert polygons that are lists of numbers to arrays; damaged ones are not changed."""
    if not isinstance(segmentation, list):
        return segmentation
    try:
        return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (TypeError, ValueError):
        return segmentation
