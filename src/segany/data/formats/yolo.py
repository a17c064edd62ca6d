"""YOLO's segmentation labels: a text file an image, with a class and a polygon a line.

Corners are shares of the image's width and height. A polygon is one ring: parts and holes of a mask are joined to it by
bridges of no width, so that filling it gives exactly the mask. A program that also draws the outline shows the bridges.
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
"""Of corners: exact to a thousandth of a pixel in images of 100,000 pixels a side."""

BOX_NUMBERS = 5
"""Class, center, width and height: a box without a mask."""

BRIDGES_TRIED = 200_000
"""Pairs of corners among which the shortest bridge is looked for; of rings with more, the first corners are joined."""


def to_yolo(instances: Instances, classes: Sequence[Category] | None = None) -> str:
    """The label file of an image.

    Only masks and classes are kept: scores, ids, boxes, sources, supercategories and other columns have no place in
    the format, and a class is a number from 0 instead of the id of its category. Empty masks are left out.

    Args:
        instances: any number of them.
        classes: those of the dataset, in the order of their numbers; by default `classes_of(instances)`.

    Raises:
        InstancesError: an instance is of a category that is not among the classes.
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
        text: what the file holds.
        size_hw: of the image.
        classes: those of the dataset, whose ids are the numbers in the file. A number that none has becomes a
            category whose name is that number.

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
    """Classes with numbers from 0, and those of the instances after them: all categories, by name.

    Instances without a class are of a class "object".
    """
    names = dict.fromkeys(category.name for category in (*classes, *instances.categories))
    if (instances.category_ids == NO_ID).any():
        names.setdefault(NO_CLASS)
    return tuple(Category(number, name) for number, name in enumerate(names))


def _bridged(rings: Sequence[RingArray]) -> RingArray:
    """One ring [N, 2] of all rings of a mask: into each a bridge leads at its nearest corner, and back."""
    path = rings[0]
    for ring in rings[1:]:
        at, start = len(path) - 1, 0
        if len(path) * len(ring) <= BRIDGES_TRIED:
            distances = np.abs(path[:, None] - ring).sum(axis=2)
            at, start = (int(index) for index in np.unravel_index(distances.argmin(), distances.shape))
        turned = np.roll(ring, -start, axis=0)
        path = np.concatenate([path[: at + 1], turned, turned[:1], path[at:]])
    return path
