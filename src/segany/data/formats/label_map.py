"""Masks as pictures: label maps, in which every value is an object, the names of values, and pictures of one mask."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import DataError, ImageError
from segany.core.files import path_errors
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.label_map import LabelArray
from segany.core.rle import Rle, encode_masks
from segany.data.annotations import encode_runs, read_json
from segany.data.formats.coco import whole_number
from segany.data.formats.writing import FormatOptions, json_bytes, png_bytes
from segany.data.item import AnnotatedImage
from segany.imaging.components import find_components
from segany.imaging.image import decode_image

Objects: TypeAlias = Literal["values", "foreground", "parts"]
"""What are objects in a picture: each value but 0; everything that is not background, as one; or each
connected part of that."""

VOID = 255
"""In pictures with a palette, pixels that belong to no object and no background (PASCAL VOC, DAVIS)."""

MAX_TRIED = 200
"""Label maps of a video or a dataset that are read to find out what `VOID` is."""

MAX_OBJECTS = 5000
"""A picture of more values is no label map but a photograph."""

_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")


NAME_FILES = ("labels.json", "classes.txt")
"""Files beside label maps that name their values; the first that is there counts."""


@dataclass(frozen=True)
class LabelNames:
    """What the values of label maps stand for.

    Attributes:
        categories: the class of each value that has one.
        object_ids: the object id of each value that has one.
    """

    categories: Mapping[int, Category]
    object_ids: Mapping[int, int]

    @classmethod
    def none(cls) -> LabelNames:
        """Of values without names."""
        return cls({}, {})

    @classmethod
    def read(cls, path: Path) -> LabelNames:
        """Read a file of names.

        Args:
            path: JSON from value to name, `{"1": "cat"}`, or to `{"name", "id", "supercategory", "object_id"}` as
                `encode_label_map` writes it; or text with a name a line, the first that of value 0, the background.
                Without an `id`, that of a category is the lowest value of its name.

        Raises:
            DataError: it cannot be read, or is of another form.
        """
        if path.suffix.lower() == ".txt":
            with path_errors(path, DataError):
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            entries: Any = {value: line.strip() for value, line in enumerate(lines) if line.strip()}
        else:
            entries = read_json(path)
        try:
            facts = {
                int(value): {"name": entry} if isinstance(entry, str) else dict(entry)
                for value, entry in (entries.items() if isinstance(entries, dict) else enumerate(entries))
            }
            return cls._of_facts(facts)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise DataError(
                f'{path} does not name the values of label maps, as {{"1": "cat"}} does: {error}.'
            ) from error

    @classmethod
    def _of_facts(cls, facts: Mapping[int, Mapping[str, Any]]) -> LabelNames:
        ids: dict[str, int] = {}
        categories = {}
        for value, fact in sorted(facts.items()):
            if value and "name" in fact:
                number = _checked_id(fact.get("id", ids.setdefault(fact["name"], value)))
                categories[value] = Category(number, str(fact["name"]), str(fact.get("supercategory", "")))
        return cls(
            categories, {value: _checked_id(fact["object_id"]) for value, fact in facts.items() if "object_id" in fact}
        )

    @classmethod
    def beside(cls, folders: Iterable[Path]) -> LabelNames:
        """The names in the first of `NAME_FILES` that any of some folders has; none where there is no such file."""
        files = (folder / name for folder in folders for name in NAME_FILES)
        found = next((file for file in files if file.is_file()), None)
        return cls.none() if found is None else cls.read(found)

    def to_instances(self, masks: Mapping[int, Rle], size_hw: SizeHW) -> Instances:
        """Masks by value as instances with their categories and object ids.

        Raises:
            InstancesError: a mask is of another size, or two categories have one id.
        """
        by_id = {category.id: category for category in self.categories.values()}
        category_of = {value: category.id for value, category in self.categories.items()}
        return Instances.from_rles(
            masks.values(),
            size_hw,
            category_ids=np.array([category_of.get(value, NO_ID) for value in masks], dtype=np.int64),
            categories=[by_id[number] for number in sorted(by_id)],
            object_ids=np.array([self.object_ids.get(value, NO_ID) for value in masks], dtype=np.int64),
        )


def encode_label_map(annotated: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
    """A PNG of 16 bits, or a NumPy file of 32 where the labels need them: 0 for none, i + 1 for the i-th instance.

    Where instances have classes or object ids, a JSON file of the same name has them by value; see `LabelNames`.
    """
    instances = annotated.instances
    labels = instances.to_label_map(options.label_order, fill=options.label_fill)
    if len(instances) <= np.iinfo(np.uint16).max:
        yield "_labels.png", png_bytes(labels.astype(np.uint16))
    else:
        buffer = io.BytesIO()
        np.save(buffer, labels)
        yield "_labels.npy", buffer.getvalue()
    facts: dict[str, dict[str, Any]] = {}
    for value, instance in enumerate(instances, start=1):
        fact: dict[str, Any] = {}
        if instance.category is not None:
            fact = {"name": instance.category.name, "id": instance.category.id}
            if instance.category.supercategory:
                fact["supercategory"] = instance.category.supercategory
        if instance.object_id != NO_ID:
            fact["object_id"] = instance.object_id
        if fact:
            facts[str(value)] = fact
    if facts:
        yield "_labels.json", json_bytes(facts)


def read_objects(
    source: Path | bytes, what: str, objects: Objects = "values", *, void: bool | None = None
) -> dict[int, Rle]:
    """The objects in a picture: their masks by label, in ascending order.

    Args:
        source: a file, or what it holds.
        what: begins messages.
        objects: see `Objects`. Parts are numbered from 1.
        void: as for `read_labels`.

    Raises:
        DataError: it is missing, no picture, damaged, or no label map.
    """
    if objects == "foreground":
        mask = read_mask(source, what)
        return {1: encode_masks(mask)[0]} if mask.any() else {}
    if objects == "parts":
        return encode_labels(label_parts(read_mask(source, what)))
    return encode_labels(read_labels(source, what, void=void))


def read_labels(source: Path | bytes, what: str, *, void: bool | None = None) -> LabelArray:
    """A label map: int32 [H, W], 0 where there is no object.

    Pictures with a palette are read by index. In color pictures each color but black is an object.

    Args:
        source, what: as for `read_objects`.
        void: whether `VOID` is no object in a picture with a palette. A picture alone cannot tell where it holds
            nothing else; `has_void` decides for a video or a dataset. None takes it for void beside other labels.

    Raises:
        DataError: as for `read_objects`.
    """
    image = _open(source, what)
    if image.format in _LOSSY_FORMATS:
        raise DataError(
            f"{what} is {image.format}, which does not keep values exactly, so that they cannot be labels. "
            "Save it as PNG; or, where it holds one mask, read it with objects='foreground'."
        )
    labels = _values(image, what)
    if image.mode in ("P", "PA") and void is not False:
        without_void = np.where(labels == VOID, 0, labels)
        labels = without_void if void or without_void.any() else labels
    return labels


def has_void(pictures: Iterable[Path]) -> bool:
    """Whether `VOID` is no object in label maps that belong together: any of them with a palette has other labels.

    Read until one tells, `MAX_TRIED` of them at most. What cannot be read tells nothing.
    """
    for path in itertools.islice(pictures, MAX_TRIED):
        try:
            image = _open(path, str(path))
            if image.mode in ("P", "PA") and not np.isin(_values(image, str(path)), (0, VOID)).all():
                return True
        except DataError:
            continue
    return False


def read_mask(source: Path | bytes, what: str) -> BoolArray:
    """A picture of one mask: bool [H, W], what is above half of its highest value.

    So black and white may be 0 and 1 or 0 and 255, and the rounded edges of lossy files do not matter.

    Raises:
        DataError: it is missing, no picture, or damaged.
    """
    image = _open(source, what)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        image = image.convert("L")
    values = _values(image, what)
    if image.mode == "P":  # an index has no half
        return np.asarray(values != 0)
    return np.asarray(values > values.max() / 2)


def encode_labels(labels: LabelArray) -> dict[int, Rle]:
    """The masks of all labels but 0 of a map [H, W], in ascending order, in one pass over it."""
    size_hw = (labels.shape[0], labels.shape[1])
    columns = labels.T.reshape(-1)
    start = np.append(0, np.flatnonzero(columns[1:] != columns[:-1]) + 1)
    stop = np.append(start[1:], len(columns))
    value = columns[start]
    by_value = np.argsort(value, kind="stable")
    found, first = np.unique(value[by_value], return_index=True)
    encodings = {}
    for label, runs in zip(found.tolist(), np.split(by_value, first[1:]), strict=True):
        if label == 0:
            continue
        edges = np.stack([start[runs], stop[runs]], axis=1).reshape(-1)
        lengths = np.diff(edges, prepend=0, append=len(columns))
        encodings[int(label)] = encode_runs(lengths if lengths[-1] else lengths[:-1], size_hw)
    return encodings


def _open(source: Path | bytes, what: str) -> Image.Image:
    """The image, decoded and upright, with the values it has."""
    try:
        return decode_image(source, name=what)
    except ImageError as error:
        raise DataError(str(error)) from error


def _values(image: Image.Image, what: str) -> LabelArray:
    values = np.asarray(image)
    if image.mode in ("LA", "PA"):
        values = values[..., 0]
    elif image.mode in ("RGB", "RGBA"):
        channels = values[..., :3].astype(np.int32)
        is_gray = (channels[..., :1] == channels).all()
        values = channels[..., 0] if is_gray else channels @ np.array([1, 1 << 8, 1 << 16], dtype=np.int32)
    elif image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise DataError(f"{what} is of Pillow's mode {image.mode}, whose values cannot be labels.")
    count = len(np.unique(values))
    if count > MAX_OBJECTS:
        raise DataError(f"{what} holds {count:,} different values. That is a photograph and no picture of masks.")
    return np.asarray(values, dtype=np.int32)


def _checked_id(value: Any) -> int:
    if whole_number(value) == NO_ID:
        raise ValueError(f"{value!r} is no id, a whole number from 0")
    return int(value)


def label_parts(mask: BoolArray) -> LabelArray:
    """The connected parts of a mask [H, W], numbered from 1, corners touching: int32 [H, W]."""
    parts = find_components(mask)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.repeat(parts.component + 1, parts.stop - parts.start)
    return labels
