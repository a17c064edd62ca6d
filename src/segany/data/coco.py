"""Datasets in the format of COCO and LVIS: one JSON file with the annotations of all images."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from segany.core.arrays import SizeHW
from segany.core.errors import DataError, InstancesError
from segany.core.instance import NO_ID, Category
from segany.data.annotations import read_json
from segany.data.folders import (
    check_folder,
    check_not_empty,
    check_size,
    find_file,
    nfc,
    printable,
    read_item_image,
    safe_name,
)
from segany.data.formats.coco import (
    FORM_ERRORS,
    NOT_COCO,
    CocoAnnotations,
    images_by_id,
    normal_id,
    parse_id,
    read_categories,
)
from segany.data.item import AnnotatedImage

_logger = logging.getLogger(__name__)

IMAGES_TRIED = 100
"""Number of images that are looked for when the dataset is opened. If all are missing, the image folder is wrong."""


@dataclass(frozen=True)
class CocoImage:
    """An image of the JSON file.

    Attributes:
        id: id in the form of `normal_id`.
        path: path of the image, relative to an image folder; it is not checked and may leave the folder.
        size_hw: size of the image; None if the file does not state it.
        rows: slice of its annotations in `CocoFile.annotations`.
    """

    id: Any
    path: PurePosixPath
    size_hw: SizeHW | None
    rows: slice

    @property
    def image_id(self) -> int | None:
        """The id as an integer; None if it is not an integer."""
        return None if parse_id(self.id) == NO_ID else self.id


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The parsed JSON file, without its images.

    Attributes:
        images: all images that the file lists.
        annotations: the annotations with a mask, grouped by image.
        categories: all categories, in the order of the file.
        omitted: counts of what is left out, as in `CocoDataset`.
    """

    images: list[CocoImage]
    annotations: CocoAnnotations
    categories: tuple[Category, ...]
    omitted: Mapping[str, int]

    @classmethod
    def parse(cls, record: Any, what: str) -> CocoFile:
        """Take what JSON text holds apart; `what` begins messages.

        Raises:
            DataError: it is of another form, or two images have one id.
        """
        return _parse(record, what)


class CocoDataset:
    """A `Dataset` of the annotated images of a COCO or LVIS file.

    Instances have categories, annotated boxes, and the columns `annotation_id`, `iscrowd` and `annotated_area`. Crowd
    regions belong to the `instances` of an image, but not to its `objects`. Images without objects are left out.
    Images of LVIS have no `file_name`; their path is the end of `coco_url`, such as train2017/000000391895.jpg. The
    whole file is parsed at once, which needs a few gigabytes for the training set of COCO.

    Attributes:
        categories: categories of the file, in its order.
        omitted: counts of what is left out, by reason: annotations without a mask, annotations of images that are not
            listed, and images without objects.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        trust_paths: bool = False,
    ) -> None:
        """Parse the JSON file. Images are read on demand.

        Args:
            annotations: path of the JSON file.
            images: the image folder. By default, the usual folders are searched: for
                annotations/instances_val2017.json these are val2017, images/val2017 and images beside annotations,
                the folder of the file, and its parent.
            trust_paths: allow absolute paths and paths that leave the image folder (../a.jpg). A file of unknown
                origin could name any file of this machine.

        Raises:
            DataError: the file is missing, damaged, not in the format of COCO or has no masks; two images have the
                same id or the same file; an image lies outside of the folder without `trust_paths`; or no image is
                found, with the folders that were searched.
        """
        self.path = Path(annotations)
        parsed = CocoFile.parse(read_json(self.path), str(self.path))
        self._annotations, self.categories = parsed.annotations, parsed.categories
        self.omitted = parsed.omitted
        _check_inside(parsed.images, self.path, trust_paths=trust_paths)
        entries = [image for image in parsed.images if parsed.annotations[image.rows].has_objects]
        check_not_empty(len(entries), self.path, "masks (boxes, crowds and captions do not count)")
        self._images = sorted(entries, key=lambda image: image.path.as_posix())
        self.names = _names(self._images)
        self._folders = [Path(images)] if images is not None else _usual_folders(self.path)
        if images is not None:
            check_folder(Path(images))
        self._check_found()
        self._check_files_differ(parsed.images)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        entry = self._images[index]
        path = self._find(entry.path)
        if path is None:
            raise DataError(f"The image {entry.path} is not in {_listed(self._folders)}.")
        image = read_item_image(path)
        size_hw = (image.shape[0], image.shape[1])
        if entry.size_hw is not None:
            check_size(image, entry.size_hw, str(path))
        try:
            instances = self._annotations[entry.rows].to_instances(size_hw, self.categories)
        except InstancesError as error:
            raise DataError(f"{self.path}, image {entry.path}: {error}") from error
        return AnnotatedImage(self.names[index], image, instances, entry.path.name, entry.image_id)

    def _find(self, path: PurePosixPath) -> Path | None:
        """Find an image in the image folders by its path, or else by its name alone; None if it is missing."""
        tails = (path, PurePosixPath(path.name))
        found = (find_file(folder, tail) for tail in tails for folder in self._folders)
        return next((file for file in found if file is not None), None)

    def _check_found(self) -> None:
        tried = self._images[:IMAGES_TRIED]
        if not any(self._find(image.path) for image in tried):
            raise DataError(
                f"No image of {self.path} was found, such as {tried[0].path}. Looked in {_listed(self._folders)}. "
                "Give the folder of the images."
            )

    def _check_files_differ(self, images: Sequence[CocoImage]) -> None:
        """Raise `DataError` if two images refer to the same file, since their masks belong to different images."""
        by_name: dict[str, list[CocoImage]] = {}
        for image in images:
            by_name.setdefault(nfc(image.path.name).casefold(), []).append(image)
        for group in by_name.values():
            found: dict[PurePath, CocoImage] = {}
            for image in group if len(group) > 1 else ():
                file = self._find(image.path)
                other = found.setdefault(image.path if file is None else file.resolve(), image)
                if other is not image:
                    both = f"{other.path} (id {other.id}) and {image.path} (id {image.id})"
                    raise DataError(
                        f"{self.path}: the images {both} are one file, {file or image.path}. Give the folder that "
                        "tells them apart, or list the image once."
                    )


def _parse(record: Any, what: str) -> CocoFile:
    """Parse the JSON file, and group the annotations by image."""
    omitted = {"annotations without a mask": 0, "annotations of images that are not listed": 0}
    try:
        images = images_by_id(record)
        by_image: dict[Any, list[Any]] = {number: [] for number in images}
        unlisted = None
        for annotation in record["annotations"]:
            if not annotation.get("segmentation"):
                omitted["annotations without a mask"] += 1
                continue
            number = normal_id(annotation["image_id"])
            if number in by_image:
                by_image[number].append(annotation)
            else:
                unlisted = number
                omitted["annotations of images that are not listed"] += 1
        annotations = CocoAnnotations.parse([item for items in by_image.values() for item in items])
        entries, stop = [], 0
        for number, image in images.items():
            rows = slice(stop, stop + len(by_image[number]))
            stop = rows.stop
            entries.append(CocoImage(number, _image_path(image), _size_hw(image), rows))
        omitted["images without objects"] = sum(not annotations[one.rows].has_objects for one in entries)
        categories = read_categories(record)
    except InstancesError as error:
        raise DataError(f"{what}: {error}") from error
    except FORM_ERRORS as error:
        raise DataError(f"{what}: {NOT_COCO} ({type(error).__name__}: {error}).") from error
    if unlisted is not None:
        count = omitted["annotations of images that are not listed"]
        _logger.warning("%s: %s annotations are left out, since their images are not listed, such as image %s.",
                        what, f"{count:,}", unlisted)  # fmt: skip
    return CocoFile(entries, annotations, categories, {what: count for what, count in omitted.items() if count})


def _check_inside(images: Sequence[CocoImage], path: Path, *, trust_paths: bool) -> None:
    """Raise `DataError` if the path of an image is not that of a file, or leaves the image folder."""
    for image in images:
        name = image.path
        if name.name in ("", ".."):
            raise DataError(f"{path}: image {image.id} has the file_name {name.as_posix()!r}, which names no file.")
        leads_out = name.is_absolute() or ".." in name.parts or bool(PureWindowsPath(name).anchor)
        if leads_out and not trust_paths:
            raise DataError(
                f"{path}: the image {name} lies outside of the folder of the images. If you trust this file, say so: "
                "trust_paths=True, on the command line --trust-paths."
            )


def _image_path(image: Mapping[str, Any]) -> PurePosixPath:
    if image.get("file_name"):
        return PurePosixPath(str(image["file_name"]).replace("\\", "/"))
    split, name = str(image["coco_url"]).split("/")[-2:]
    return PurePosixPath(split, name)


def _size_hw(image: Mapping[str, Any]) -> SizeHW | None:
    if image.get("height") is None or image.get("width") is None:
        return None
    return int(image["height"]), int(image["width"])


def _names(images: list[CocoImage]) -> tuple[str, ...]:
    """Return unique names: paths without suffix, or else with suffix, or else with a number."""
    names = [safe_name(image.path) for image in images]
    if len(set(names)) < len(names):
        names = [f"{name}{printable(image.path.suffix)}" for name, image in zip(names, images, strict=True)]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(unique)


def _usual_folders(path: Path) -> list[Path]:
    """Return the existing folders among those where images of an annotation file usually are."""
    split = path.stem.rsplit("_", 1)[-1]  # val2017 of instances_val2017
    root = path.parent.parent
    folders = [root / split, root / "images" / split, root / "images", path.parent, path.parent / "images", root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
