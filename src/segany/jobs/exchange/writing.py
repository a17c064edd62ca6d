"""The formats of an export: what each writes into the archive, and what it cannot hold."""

from __future__ import annotations

import json
import mimetypes
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np

from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.data.folders import nfc
from segany.data.formats.coco import NO_CLASS, to_coco
from segany.data.formats.label_map import label_map_files
from segany.data.formats.labelme import to_labelme
from segany.data.formats.mask_image import MAX_LABELS
from segany.data.formats.sa1b import to_sa1b
from segany.data.formats.writing import json_bytes
from segany.data.formats.yolo import to_yolo
from segany.jobs.exchange.reading import is_image, stem_of
from segany.store import Item


@dataclass(frozen=True, eq=False)
class Exported:
    """An image of an export.

    Attributes:
        item: as the project has it.
        name: unique in the archive, with folders; the image is images/NAME where there is a folder for them.
        instances: its objects, in the order of drawing, with the columns `annotation_id`, unique in the image, and
            `iscrowd`.
        ids: the id of each object that it was imported with; `NO_ID` for none.
        attributes: of each object, without those two.
    """

    item: Item
    name: str
    instances: Instances
    ids: list[int]
    attributes: list[dict[str, Any]]


class Archive:
    """A zip archive that is written member by member; the same content gives the same bytes."""

    def __init__(self, file: zipfile.ZipFile, folder: Path) -> None:
        self._file = file
        self.folder = folder
        """Where there is space for what waits to be written."""

    def write(self, name: str, data: bytes) -> None:
        """Write a member."""
        self._file.writestr(_member(name), data)

    def open(self, name: str, *, is_packed: bool = False) -> IO[bytes]:
        """Open a member for writing, of any size; `is_packed` where compressing it again is no use."""
        return self._file.open(
            _member(name, zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED), "w", force_zip64=True
        )


def _member(name: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # of 1980
    info.external_attr = 0o644 << 16
    info.compress_type = compression
    return info


class Lost:
    """What a format could not hold, and how often."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        """Count something that is lost."""
        if count:
            self._counts[what] += int(count)

    def add_facts(self, image: Exported, *, labels: bool, crowds: bool, attributes: bool) -> None:
        """Count what the format has no place for: labels, the mark of crowd regions, attributes."""
        instances = image.instances
        if labels:
            self.add("Labels of objects", int((instances.category_ids != NO_ID).sum()))
        else:
            none = int((instances.category_ids == NO_ID).sum())
            self.add(f"Objects without a label, which have the label {NO_CLASS!r} in the files", none)
        if crowds:
            self.add("Marks of objects as crowd regions", int(instances.columns["iscrowd"].sum()))
        if attributes:
            self.add("Attributes of objects", sum(len(own) for own in image.attributes))

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each kind of loss."""
        return tuple(f"{what}: {count:,}." for what, count in self._counts.items())


class Writer(Protocol):
    """Writes a format, one image after the other."""

    image_folder: str
    """Where images are, as the start of their names in the archive."""

    by_stem: bool
    """Whether names must be unique without their endings too."""

    def add(self, image: Exported) -> None:
        """Write an image's annotations."""

    def finish(self) -> None:
        """Write what is about all images."""

    def close(self) -> None:
        """Remove what is not part of the archive."""


class CocoWriter:
    """annotations/instances.json. Annotations wait in a file, since images come first and ids must be unique."""

    image_folder, by_stem = "images/", False

    def __init__(self, archive: Archive, lost: Lost, labels: Sequence[Category], used: set[int]) -> None:
        self._archive, self._lost, self._used = archive, lost, used
        self._images: list[bytes] = []
        self._categories: dict[int, Mapping[str, Any]] = {}
        self._label_ids = {label.id for label in labels}
        self._waiting = tempfile.TemporaryFile(dir=archive.folder)  # noqa: SIM115 - closed by `close`
        self._ids: list[int] = []

    def add(self, image: Exported) -> None:
        record = to_coco(image.instances, image.name, image.item.position + 1)
        self._images.append(json.dumps(record["images"][0]).encode())
        for category in record["categories"]:
            self._categories.setdefault(category["id"], category)
        for annotation, attributes in zip(record["annotations"], image.attributes, strict=True):
            del annotation["id"]
            if attributes:
                annotation["attributes"] = attributes
            self._waiting.write(json.dumps(annotation, separators=(",", ":")).encode() + b"\n")
        self._ids += image.ids
        self._lost.add_facts(image, labels=False, crowds=False, attributes=False)

    def finish(self) -> None:
        categories = [
            category for number, category in self._categories.items()
            if number not in self._label_ids or number in self._used
        ]  # fmt: skip
        self._waiting.seek(0)
        with self._archive.open("annotations/instances.json") as file:
            file.write(b'{"info":{"description":"Masks made with segany"},\n"images":[')
            _write_list(file, iter(self._images))
            file.write(b'],\n"categories":' + json.dumps(categories).encode() + b',\n"annotations":[')
            numbered = zip(unique_ids(self._ids), self._waiting, strict=True)
            _write_list(file, (b'{"id":%d,' % number + line[1:-1] for number, line in numbered))
            file.write(b"]}\n")

    def close(self) -> None:
        self._waiting.close()


def _write_list(file: IO[bytes], lines: Iterator[bytes]) -> None:
    for number, line in enumerate(lines):
        file.write((b",\n" if number else b"\n") + line)


def unique_ids(wanted: Sequence[int]) -> list[int]:
    """Ids as they are wanted, each once; new ones, above all of them, where there is none or it is taken."""
    free = max(wanted, default=0) + 1
    free, taken, ids = max(free, 1), set[int](), []
    for number in wanted:
        if number == NO_ID or number in taken:
            number, free = free, free + 1  # noqa: PLW2901
        taken.add(number)
        ids.append(number)
    return ids


class YoloWriter:
    """labels/NAME.txt, data.yaml, and a list of images for each split."""

    image_folder, by_stem = "images/", True

    def __init__(self, archive: Archive, lost: Lost, labels: Sequence[Category], used: set[int]) -> None:
        self._archive, self._lost = archive, lost
        names = dict.fromkeys([*(label.name for label in labels if label.id in used), NO_CLASS])
        self._classes = [Category(number, name) for number, name in enumerate(names)]
        self._is_known = any(label.name == NO_CLASS and label.id in used for label in labels)
        self._lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}

    def add(self, image: Exported) -> None:
        is_crowd = np.asarray(image.instances.columns["iscrowd"], dtype=np.bool_)
        self._lost.add("Crowd regions, which are left out", int(is_crowd.sum()))
        kept = np.flatnonzero(~is_crowd)
        instances = image.instances[kept]
        text = to_yolo(instances, self._classes)
        self._archive.write(f"labels/{stem_of(image.name)}.txt", text.encode())
        self._lists[image.item.split].append(f"./images/{image.name}")
        rings = [sum(len(polygon.rings) for polygon in instance.polygons) for instance in instances]
        self._lost.add("Masks without a pixel, which are left out", rings.count(0))
        self._lost.add(
            "Masks with holes or several parts, joined to one outline by bridges of zero width, which some programs "
            "draw", sum(count > 1 for count in rings),
        )  # fmt: skip
        self._is_known |= bool((instances.category_ids == NO_ID).any())
        shown = Exported(
            image.item, image.name, instances, [image.ids[i] for i in kept], [image.attributes[i] for i in kept]
        )
        self._lost.add("Ids of annotations", sum(number != NO_ID for number in shown.ids))
        self._lost.add_facts(shown, labels=False, crowds=False, attributes=True)

    def finish(self) -> None:
        classes = [one for one in self._classes if self._is_known or one.name != NO_CLASS]
        names = "".join(f"  {one.id}: {json.dumps(one.name)}\n" for one in classes)
        lists = [name for name, images in self._lists.items() if images]
        for name in lists:
            self._archive.write(f"{name}.txt", "".join(f"{image}\n" for image in self._lists[name]).encode())
        keys = {"train": "train" if "train" in lists else lists[0] if lists else "train"}
        keys["val"] = "val" if "val" in lists else keys["train"]
        entries = {**keys, **({"test": "test"} if "test" in lists else {})}
        head = "".join(f"{key}: {name}.txt\n" for key, name in entries.items())
        self._archive.write("data.yaml", f"path: .\n{head}names:\n{names}".encode())

    def close(self) -> None:
        """There is nothing to remove."""


class _RecordWriter:
    """Formats with files of their own for each image."""

    image_folder, by_stem = "", True

    def __init__(self, archive: Archive, lost: Lost, labels: Sequence[Category], used: set[int]) -> None:  # noqa: ARG002
        self._archive, self._lost = archive, lost

    def finish(self) -> None:
        """There is nothing about all images."""

    def close(self) -> None:
        """There is nothing to remove."""


class Sa1bWriter(_RecordWriter):
    """NAME.json beside the image."""

    def add(self, image: Exported) -> None:
        file_name = PurePosixPath(image.name).name
        record = to_sa1b(image.instances, file_name, image.item.position + 1)
        self._archive.write(f"{stem_of(image.name)}.json", json_bytes(record))
        self._lost.add_facts(image, labels=True, crowds=True, attributes=True)


class LabelMeWriter(_RecordWriter):
    """NAME.json beside the image."""

    def add(self, image: Exported) -> None:
        record = to_labelme(image.instances, PurePosixPath(image.name).name, image.attributes)
        self._archive.write(f"{stem_of(image.name)}.json", json_bytes(record))
        self._lost.add("Masks without a pixel, which are left out", int((image.instances.areas == 0).sum()))
        self._lost.add_facts(image, labels=False, crowds=False, attributes=False)


class LabelMapWriter(_RecordWriter):
    """masks/NAME.png, and masks/NAME.json with the labels of its values."""

    image_folder = "images/"

    def add(self, image: Exported) -> None:
        instances = image.instances.with_object_ids(np.array(image.ids, dtype=np.int64))
        labels = instances.to_label_map()
        for ending, data in label_map_files(instances, labels, names_all=True):
            self._archive.write(f"masks/{stem_of(image.name)}{ending}", data)
        areas, visible = instances.areas, np.bincount(labels.ravel(), minlength=len(instances) + 1)[1:]
        self._lost.add("Masks without a pixel, which are left out", int((areas == 0).sum()))
        self._lost.add("Objects hidden by smaller ones over them", int(((visible == 0) & (areas > 0)).sum()))
        self._lost.add(
            "Objects of which smaller ones over them hide a part", int(((visible < areas) & (visible > 0)).sum())
        )
        self._lost.add(
            f"Images of more than {MAX_LABELS:,} objects, which cannot be imported again", len(instances) > MAX_LABELS
        )
        self._lost.add("Marks of objects as crowd regions", int(instances.columns["iscrowd"].sum()))
        self._lost.add("Attributes of objects", sum(len(own) for own in image.attributes))


WRITERS: Mapping[str, type[CocoWriter | YoloWriter | Sa1bWriter | LabelMeWriter | LabelMapWriter]] = {
    "coco": CocoWriter,
    "yolo-seg": YoloWriter,
    "labelme": LabelMeWriter,
    "sa-1b": Sa1bWriter,
    "label-maps": LabelMapWriter,
}


class FileNames:
    """Names of files for the names of items, which are data: unique, relative, and none leads anywhere."""

    def __init__(self, *, by_stem: bool) -> None:
        self._by_stem = by_stem
        self._taken: set[str] = set()

    def of(self, name: str, media_type: str) -> str:
        """The name of the file of an item, with the ending of an image."""
        parts = [_printable(part) for part in name.replace("\\", "/").split("/") if part.strip() not in ("", ".", "..")]
        path = PurePosixPath("/".join(part.lstrip(".") or "_" for part in parts) or "image")
        if not is_image(str(path)):
            path = path.with_name(f"{path.name}{mimetypes.guess_extension(media_type) or ''}")
        file, number = path, 1
        while self._key(file) in self._taken:
            number += 1
            file = path.with_name(f"{path.stem}_{number}{path.suffix}")
        self._taken.add(self._key(file))
        return str(file)

    def _key(self, path: PurePosixPath) -> str:
        """Names that differ only in case or in their form of Unicode are the same on some systems."""
        return nfc(stem_of(str(path)) if self._by_stem else str(path)).casefold()


def _printable(part: str) -> str:
    return "".join("_" if ord(letter) < 32 or letter in '<>:"|?*\x7f' else letter for letter in part).strip()
