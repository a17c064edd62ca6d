"""YOLO's segmentation labels: a text file for each image, with a class and a polygon in each line.

Coordinates are normalized by the image's width and height. A polygon is a single ring: parts and holes of a mask are
joined to it by bridges of zero width, so that the filled polygon is exactly the mask. Programs that draw the outline
show the bridges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segany.core.arrays import SizeHW
from segany.core.errors import InstancesError
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.polygons import Polygon, RingArray, polygons_to_mask
from segany.core.rle import encode_masks
from segany.data.annotations import check_path_length
from segany.data.formats.coco import NO_CLASS

DECIMALS = 8
"""Number of decimals of coordinates, exact to a thousandth of a pixel in images of 100,000 pixels a side."""

BOX_NUMBERS = 5
"""Number of values in a line with a box instead of a polygon: class, center, width and height."""

BRIDGES_TRIED = 200_000
"""Largest number of pairs of corners that are searched for the shortest bridge. Beyond it, first corners are joined."""


def to_yolo(instances: Instances, classes: Sequence[Category] | None = None) -> str:
    """The content of the label file of an image.

    The format holds only masks and classes, without scores, ids, boxes, sources, supercategories and other columns. A
    class is a number from 0 instead of a category id. Empty masks are left out.

    Args:
        instances: the instances.
        classes: classes of the dataset, in the order of their numbers; by default `classes_of(instances)`.

    Raises:
        InstancesError: the category of an instance is not one of the classes.
    """
    classes = classes_of(instances) if classes is None else classes
    number_of = {category.name: number for number, category in enumerate(classes)}
    height, width = instances.size_hw
    lines = []
    for instance in instances:
        name = NO_CLASS if instance.category is None else instance.category.name
        if name not in number_of:
            raise InstancesError(f"There is no class {name!r}. Classes: {', '.join(number_of) or 'none'}.")
        rings = [ring for polygon in instance.polygons for ring in polygon.rings]
        if rings:
            corners = (_bridged(rings) / (width, height)).ravel().tolist()
            lines.append(" ".join([str(number_of[name]), *(f"{corner:.{DECIMALS}g}" for corner in corners)]))
    return "".join(f"{line}\n" for line in lines)


def from_yolo(text: str, size_hw: SizeHW, classes: Sequence[Category] = ()) -> Instances:
    """The instances of a label file, source "import". Boxes without a mask are left out.

    A pixel belongs to a mask when its center lies inside the polygon.

    Args:
        text: content of the file.
        size_hw: size of the image.
        classes: classes of the dataset, whose ids are the numbers in the file. An unknown number becomes a category
            with the number as its name.

    Raises:
        InstancesError: a line is neither a polygon nor a box.
    """
    height, width = size_hw
    known = {category.id: category for category in classes}
    counts, ids = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            first, *numbers = line.split()
            class_id = int(float(first))
            corners = np.array(numbers, dtype=np.float64)
        except (ValueError, OverflowError) as error:
            raise InstancesError(f"Line {number} holds no numbers: {error}.") from error
        if len(corners) + 1 == BOX_NUMBERS:
            continue
        if class_id < 0 or len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) <= 2).all():
            raise InstancesError(
                f"Line {number} is no polygon: that is a class from 0, and at least three corners x y in shares of the "
                "image's width and height."
            )
        polygon = Polygon(corners.reshape(-1, 2) * (width, height))
        try:
            check_path_length(polygon.rings)
        except ValueError as error:
            raise InstancesError(f"Line {number}: {error}") from error
        counts.append(encode_masks(polygons_to_mask([polygon], size_hw))[0]["counts"])
        ids.append(class_id)
        known.setdefault(class_id, Category(class_id, str(class_id)))
    return Instances(counts, size_hw, category_ids=np.array(ids, dtype=np.int64), categories=known.values())


def classes_of(instances: Instances, classes: Sequence[Category] = ()) -> tuple[Category, ...]:
    """Number classes from 0: the given ones, and after them the categories of the instances with other names.

    Instances without a class have the class "object".
    """
    names = dict.fromkeys(category.name for category in (*classes, *instances.categories))
    if (instances.category_ids == NO_ID).any():
        names.setdefault(NO_CLASS)
    return tuple(Category(number, name) for number, name in enumerate(names))


def _bridged(rings: Sequence[RingArray]) -> RingArray:
    """Join the rings of a mask to one ring [N, 2], with a bridge to the nearest corner of each ring and back."""
    path = rings[0]
    for ring in rings[1:]:
        at, start = len(path) - 1, 0
        if len(path) * len(ring) <= BRIDGES_TRIED:
            distances = np.abs(path[:, None] - ring).sum(axis=2)
            at, start = (int(index) for index in np.unravel_index(distances.argmin(), distances.shape))
        turned = np.roll(ring, -start, axis=0)
        path = np.concatenate([path[: at + 1], turned, turned[:1], path[at:]])
    return path
