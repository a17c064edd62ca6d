"""Datasets in YOLO's segmentation format: images, a label file for each, and the names of the classes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import yaml

from segany.core.errors import DataError, InstancesError
from segany.core.files import read_text, write_file
from segany.core.instance import Category
from segany.data.folders import (
    check_folder,
    check_not_empty,
    find_file,
    images_below,
    name_of,
    read_item_image,
    subfolders,
    walk_files,
)
from segany.data.formats.writing import png_bytes
from segany.data.formats.yolo import BOX_NUMBERS, classes_of, from_yolo, to_yolo
from segany.data.item import AnnotatedImage, Dataset
from segany.imaging.image_formats import readable_suffixes

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""Files with the names of classes, relative to the folder of a dataset. The first one that exists is read."""

FOLDERS_UP = 3
"""Number of parent folders in which `CLASS_FILES` are looked for as well, for a folder of one split."""

FILES_TRIED = 100
"""Number of label files that are read to recognize the layout, and to distinguish polygons from boxes."""


class YoloFolder:
    """A `Dataset` of images with label files of the same name: labels/a.txt for images/a.jpg, or a.txt beside a.jpg.

    The last folder called images in the path of an image is called labels in that of its label file. Classes are
    named by a `data.yaml` with `names`, or a `classes.txt` with a name a line, in the folder or up to three above it;
    ids of categories are the numbers in the files. To read one split alone, open its folder, such as images/train or
    train. Images without a label file are left out, and so are boxes without a polygon.

    Attributes:
        categories: the classes that are named.
        left_out: names of the images without a label file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the files, and read the names of the classes.

        Args:
            folder: the folder of the dataset or of a split, or a `data.yaml`.

        Raises:
            DataError: the folder does not exist, no image has a label file, or the label files hold only boxes.
        """
        root = Path(folder)
        if root.suffix.lower() in (".yaml", ".yml"):
            root = root.parent
        check_folder(root)
        self.categories = _read_classes(root)
        pairs = [(image, _label_file(image)) for image in images_below(root)]
        self._pairs = [(image, label) for image, label in pairs if label is not None]
        self.left_out = tuple(name_of(image, root) for image, label in pairs if label is None)
        check_not_empty(len(self._pairs), root, "image with a label file (images/a.jpg with labels/a.txt)")
        self.names = tuple(name_of(image, root) for image, _ in self._pairs)
        _check_polygons([label for _, label in self._pairs[:FILES_TRIED]], root)

    @property
    def omitted(self) -> Mapping[str, int]:
        """Number of images that are left out, by reason."""
        return {"images without a label file": len(self.left_out)}

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        path, label = self._pairs[index]
        image = read_item_image(path)
        try:
            instances = from_yolo(_text(label), (image.shape[0], image.shape[1]), self.categories)
        except InstancesError as error:
            raise DataError(f"{label}: {error}") from error
        return AnnotatedImage(self.names[index], image, instances, path.name)


def has_yolo_labels(folder: Path) -> bool:
    """Whether a folder has the layout of a YOLO dataset.

    It has if it, or a folder in it, holds a folder `labels` with label files of images, or if it is a folder of images
    with such a folder beside it. Other folders are not searched, because a folder may be large.
    """
    own = _replaced(folder, "images", "labels")
    places = [folder / "labels", *(sub / "labels" for sub in subfolders(folder)), *([own] if own else [])]
    suffixes = readable_suffixes()
    for place in places:
        if not place.is_dir():
            continue
        texts = (file for file in walk_files(place) if file.suffix.lower() == ".txt")
        for text in islice(texts, FILES_TRIED):
            image = _replaced(text, "labels", "images")
            if image is not None and any(image.with_suffix(suffix).is_file() for suffix in suffixes):
                return True
    return False


@dataclass(frozen=True)
class YoloReport:
    """Counts of what `write_yolo` wrote, and of what the format cannot represent.

    Attributes:
        images: number of images with label files.
        instances: number of lines in the label files.
        bridged: number of instances with holes or several parts, which are joined by bridges of zero width. Some
            programs draw the bridges.
        without_class: number of instances without a class, which get the class "object".
        left_out: number of instances that are not written: crowd regions and empty masks.
        skipped: images that could not be read, each with the reason.
    """

    images: int
    instances: int
    bridged: int
    without_class: int
    left_out: int
    skipped: tuple[tuple[str, str], ...]


def write_yolo(dataset: Dataset, folder: str | os.PathLike[str]) -> YoloReport:
    """Write a dataset in YOLO's format: `images/NAME.png`, `labels/NAME.txt`, and `data.yaml` with the classes.

    Args:
        dataset: the dataset.
        folder: the output folder, which is created if it is missing.

    Raises:
        OutputError: a file could not be written.
    """
    root = Path(folder)
    classes: tuple[Category, ...] = ()
    skipped: list[tuple[str, str]] = []
    images = written = bridged = without_class = left_out = 0
    for index, name in enumerate(dataset.names):
        try:
            annotated = dataset.read(index)
        except DataError as error:
            skipped.append((name, str(error)))
            continue
        classes = classes_of(annotated.objects, classes)
        text = to_yolo(annotated.objects, classes)
        write_file(root / "images" / f"{name}.png", png_bytes(annotated.image))
        write_file(root / "labels" / f"{name}.txt", text.encode())
        lines = text.count("\n")
        images, written, left_out = images + 1, written + lines, left_out + len(annotated.instances) - lines
        for instance in annotated.objects:
            bridged += sum(len(polygon.rings) for polygon in instance.polygons) > 1
            without_class += instance.category is None
    entries = "".join(f"  {category.id}: {json.dumps(category.name)}\n" for category in classes)
    write_file(root / "data.yaml", f"train: images\nval: images\nnames:\n{entries}".encode())
    return YoloReport(images, written, bridged, without_class, left_out, tuple(skipped))


def _label_file(image: Path) -> Path | None:
    places = [_replaced(image, "images", "labels"), image]
    texts = (place.with_suffix(".txt") for place in places if place is not None)
    found = (find_file(text.parent, PurePath(text.name)) for text in texts)
    return next((text for text in found if text is not None), None)


def _replaced(path: Path, name: str, by: str) -> Path | None:
    """Rename the last folder of a path that has a certain name; None if there is no such folder."""
    places = [index for index, part in enumerate(path.parts) if part == name]
    return Path(*path.parts[: places[-1]], by, *path.parts[places[-1] + 1 :]) if places else None


def _check_polygons(labels: list[Path], root: Path) -> None:
    counts = {len(line.split()) for label in labels for line in _text(label).splitlines() if line.strip()}
    if counts == {BOX_NUMBERS}:
        raise DataError(f"The label files of {root} hold boxes and no polygons. Prompt a model with the boxes first.")


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads YAML without aliases, with which a few lines can stand for billions of names."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1} has an alias (*), which is not read")
        return super().compose_node(parent, index)


def _read_classes(root: Path) -> tuple[Category, ...]:
    folders = (root, *list(root.absolute().parents)[:FOLDERS_UP])
    path = next((folder / name for folder in folders for name in CLASS_FILES if (folder / name).is_file()), None)
    if path is None:
        return ()
    return parse_classes(_text(path), path.suffix, str(path))


def parse_classes(text: str, suffix: str, what: str) -> tuple[Category, ...]:
    """The classes of a `classes.txt` or `data.yaml`, told apart by the suffix; `what` begins messages.

    Raises:
        DataError: it is of another form.
    """
    if suffix == ".txt":
        names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            names = yaml.load(text, _PlainLoader).get("names") or {}
        except (yaml.YAMLError, AttributeError, ValueError, RecursionError) as error:
            raise DataError(f"{what} is no data.yaml of YOLO: {error}.") from error
    try:
        entries = names.items() if isinstance(names, dict) else enumerate(names)
        return tuple(Category(int(number), str(name)) for number, name in sorted(entries))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} has names that are neither a list nor numbers with names: {error}.") from error


def _text(path: Path) -> str:
    return read_text(path, DataError)
