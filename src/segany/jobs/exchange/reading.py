"""What the files of an import say: for each image they name, its objects. The formats are those of `segany.data`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from segany.core.arrays import SizeHW
from segany.core.errors import DataError
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.data.annotations import parse_json
from segany.data.coco import CocoFile, CocoImage
from segany.data.folders import nfc
from segany.data.formats.labelme import from_labelme, shapes_without_area
from segany.data.formats.sa1b import from_sa1b
from segany.data.formats.yolo import from_yolo
from segany.data.mask_folder import IMAGE_FOLDERS
from segany.data.yolo import CLASS_FILES, parse_classes
from segany.imaging.image_formats import readable_suffixes
from segany.jobs.exchange.bundle import Bundle

ANNOTATION_ID, ISCROWD = "annotation_id", "iscrowd"
"""Attributes under which an object keeps what COCO and others say of it."""

_TEXT = 10_000  # characters of an attribute


@dataclass(frozen=True, eq=False)
class Found:
    """The objects that a file has for an image.

    Attributes:
        instances: the objects.
        attributes: of each: text and numbers.
        left_out: what is no object with a mask, and how many.
    """

    instances: Instances
    attributes: list[dict[str, Any]]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entry:
    """What the files say of one image.

    Attributes:
        image: its name, with folders as far as the file gives them; without ending where `is_stem`.
        file: which of the files says so, for messages.
        size_hw: of the image; None where that is not known yet.
        read: reads its objects, for an image of a size; raises `DataError` or `InstancesError`.
    """

    image: str
    file: str
    size_hw: SizeHW | None
    read: Callable[[SizeHW], Found]
    is_stem: bool = False


@dataclass
class Reading:
    """What the files of an import say.

    Attributes:
        entries: the images.
        used: names of the files that were taken for annotations.
        skipped: what could not be used: names, and why.
    """

    entries: list[Entry] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def is_image(name: str) -> bool:
    """Whether a file has the ending of an image."""
    return PurePosixPath(name).suffix.lower() in readable_suffixes()


def stem_of(name: str) -> str:
    """A name with its folders, without its ending."""
    return str(PurePosixPath(name).with_suffix(""))


def read_coco(bundle: Bundle) -> Reading:
    """All JSON files, each of which is one of COCO or LVIS."""
    reading = Reading()
    for name in _with_suffix(bundle, ".json"):
        reading.used.add(name)
        try:
            record = parse_json(bundle.read(name), name)
            if isinstance(record, dict) and "annotations" in record and not record["annotations"]:
                record = {**record, "annotations": []}
            file = CocoFile.parse(record, name)
        except DataError as error:
            reading.skipped.append((name, str(error)))
            continue
        omitted = {what: count for what, count in file.omitted.items() if what != "images without objects"}
        omitted["supercategories, which labels do not have"] = sum(bool(one.supercategory) for one in file.categories)
        reading.skipped += [(name, f"Left out, {what}: {count:,}.") for what, count in omitted.items() if count]
        for image in file.images:
            read = _coco_reader(file, image)
            reading.entries.append(Entry(image.path.as_posix(), name, image.size_hw, read))
    return reading


def _coco_reader(file: CocoFile, image: CocoImage) -> Callable[[SizeHW], Found]:
    def read(size_hw: SizeHW) -> Found:
        rows = file.annotations[image.rows]
        places = np.arange(len(rows.segmentations), dtype=np.int64)
        numbered = dataclasses.replace(rows, columns={**rows.columns, "place": places})
        instances = numbered.to_instances(size_hw, file.categories)
        attributes = [clean_attributes(rows.attributes[place]) for place in instances.columns["place"]]
        left = len(places) - len(instances)
        return Found(instances, _with_facts(attributes, instances), {"annotations of fewer than three corners": left})

    return read


def read_sa1b(bundle: Bundle) -> Reading:
    """All JSON files, each of which has the masks of an image."""

    def parse(record: Any, _size_hw: SizeHW | None) -> Found:
        instances = from_sa1b(record)
        left = len(record["annotations"]) - len(instances)
        return Found(instances, _with_facts(_none(instances), instances), {"annotations without a mask": left})

    return _read_records(bundle, parse, lambda record: (record["image"].get("file_name"), record["image"]))


def read_labelme(bundle: Bundle) -> Reading:
    """All JSON files, each of which has the shapes of an image."""

    def parse(record: Any, size_hw: SizeHW | None) -> Found:
        instances = from_labelme(record, size_hw)
        shapes = [record["shapes"][place] for place in instances.columns["shape"]]
        attributes = [clean_attributes({**_dict(shape.get("attributes")), **_extras(shape)}) for shape in shapes]
        left = {f"shapes {kind}": count for kind, count in shapes_without_area(record).items()}
        return Found(instances, _with_facts(attributes, instances), left)

    def image_of(record: Any) -> tuple[Any, Any]:
        size = {"height": record.get("imageHeight"), "width": record.get("imageWidth")}
        return record.get("imagePath"), size if size["height"] else {}

    return _read_records(bundle, parse, image_of)


def _extras(shape: Mapping[str, Any]) -> dict[str, Any]:
    """What LabelMe itself asks of a shape: flags that are set, and a description."""
    flags = {name: "true" for name, is_set in _dict(shape.get("flags")).items() if is_set}
    return {**flags, **({"description": shape["description"]} if shape.get("description") else {})}


def _read_records(
    bundle: Bundle,
    parse: Callable[[Any, SizeHW | None], Found],
    image_of: Callable[[Any], tuple[Any, Any]],
) -> Reading:
    """Formats with a JSON file an image. Files are read when their images are known, one at a time."""
    reading = Reading()
    for name in _with_suffix(bundle, ".json"):
        reading.used.add(name)
        try:
            file_name, size = image_of(parse_json(bundle.read(name), name))
            image = _sibling(name, file_name)
            size_hw = (int(size["height"]), int(size["width"])) if size else None
        except DataError as error:
            reading.skipped.append((name, str(error)))
            continue
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            reading.skipped.append((name, f"It is of another form ({type(error).__name__}: {error})."))
            continue

        def read(size_hw: SizeHW, name: str = name) -> Found:
            return parse(parse_json(bundle.read(name), name), size_hw)

        reading.entries.append(Entry(image or stem_of(name), name, size_hw, read, is_stem=image is None))
    return reading


def _sibling(record: str, file_name: Any) -> str | None:
    """The image that a JSON file names, in the folder that file is in; None where it names none."""
    if not isinstance(file_name, str) or not file_name.strip():
        return None
    parts = [part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part not in (".", "..", "/")]
    if not parts:
        return None
    folder = PurePosixPath(record).parent.parts
    is_whole = tuple(parts[: len(folder)]) == folder and len(parts) > len(folder)  # from the root of the archive
    return "/".join(parts if is_whole else (*folder, parts[-1]))


def read_yolo(bundle: Bundle) -> Reading:
    """All label files; `data.yaml` or `classes.txt` names the classes."""
    reading = Reading()
    class_files = {PurePosixPath(name).name for name in CLASS_FILES}
    lists = [name for name in bundle.names if PurePosixPath(name).name in class_files]
    texts = [name for name in _with_suffix(bundle, ".txt") if name not in lists]
    labels = [name for name in texts if "labels" in PurePosixPath(name).parts[:-1]]
    if labels:  # others are lists of images, or notes
        texts = labels
    classes: tuple[Category, ...] = ()
    for name in lists[:1]:
        classes = parse_classes(_text(bundle, name), PurePosixPath(name).suffix.lower(), name)
    reading.used.update(texts, lists, {name for name in bundle.names if PurePosixPath(name).name in _IMAGE_LISTS})
    reading.skipped += [(name, f"Another file names the classes: {lists[0]}.") for name in lists[1:]]
    for name in texts:

        def read(size_hw: SizeHW, name: str = name) -> Found:
            text = _text(bundle, name)
            instances = from_yolo(text, size_hw, classes)
            left = sum(bool(line.strip()) for line in text.splitlines()) - len(instances)
            return Found(instances, _none(instances), {"boxes without a mask": left})

        reading.entries.append(Entry(without_folder(stem_of(name), ("labels",)), name, None, read, is_stem=True))
    return reading


_IMAGE_LISTS = ("train.txt", "val.txt", "test.txt")


def _text(bundle: Bundle, name: str) -> str:
    try:
        return bundle.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is no text in UTF-8: {error}.") from error


def without_folder(name: str, folders: Iterable[str]) -> str:
    """A path without the last of its folders that has one of some names: train/images/a.jpg is train/a.jpg."""
    parts = name.split("/")
    places = [index for index, part in enumerate(parts[:-1]) if part.lower() in folders]
    return "/".join([*parts[: places[-1]], *parts[places[-1] + 1 :]]) if places else name


def image_name(member: str) -> str:
    """The name of an image in an archive: its path without a folder called images."""
    return without_folder(member, IMAGE_FOLDERS)


def aliases(name: str, top: str) -> list[str]:
    """What the image of a name may be called: so, without a folder called images, and without the folder of all."""
    names = [name, image_name(name)]
    return list(dict.fromkeys([*names, *(one.removeprefix(top) for one in names)]))


def same_name(name: str) -> str:
    """What names that are the same have in common: one form of Unicode, and slashes."""
    return nfc("/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".")))


# Attributes.


def clean_attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as objects have them, text and numbers: yes and no become "true" and "false", lists JSON text."""
    cleaned: dict[str, Any] = {}
    for name, value in values.items():
        key = _plain_text(str(name))[:200]
        if value is None or not key:
            continue
        if isinstance(value, bool):
            cleaned[key] = str(value).lower()
        elif isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1 << 53:
            cleaned[key] = value
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            cleaned[key] = _plain_text(text)[:_TEXT]
    return cleaned


def _plain_text(text: str) -> str:
    """Text that every database can hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _with_facts(attributes: list[dict[str, Any]], instances: Instances) -> list[dict[str, Any]]:
    """Attributes with what else the files say of the objects."""
    columns = instances.columns
    for own, index in zip(attributes, range(len(instances)), strict=True):
        if ANNOTATION_ID in columns and columns[ANNOTATION_ID][index] != NO_ID:
            own[ANNOTATION_ID] = int(columns[ANNOTATION_ID][index])
        if ISCROWD in columns and columns[ISCROWD][index]:
            own[ISCROWD] = 1
    return attributes


def _none(instances: Instances) -> list[dict[str, Any]]:
    return [{} for _ in range(len(instances))]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _with_suffix(bundle: Bundle, suffix: str) -> list[str]:
    return [name for name in bundle.names if name.lower().endswith(suffix)]
