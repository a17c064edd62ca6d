"""COCO's instances JSON, and that of LVIS: one file that describes many images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segany.core.arrays import SizeHW
from segany.core.errors import DataError, InstancesError
from segany.core.instance import Category
from segany.data.annotations import read_json
from segany.data.folders import check_folder, check_not_empty, check_size, printable, read_item_image
from segany.data.formats.coco import FORM_ERRORS, NOT_COCO, CocoAnnotations, read_categories
from segany.data.item import AnnotatedImage

IMAGES_TRIED = 100
"""If none of the first so many images is in any folder, the folder is not known; later ones are damage."""


@dataclass(frozen=True)
class _Described:
    """What the file says of an image.

    Attributes:
        path: of the image, from a folder of images.
        size_hw: None where the file does not say.
        image_id: None where it is no whole number.
        rows: its annotations among those of the file.
    """

    path: PurePosixPath
    size_hw: SizeHW | None
    image_id: int | None
    rows: slice


class CocoDataset:
    """A `Dataset` of the images with masks that a JSON file describes.

    Instances have their categories, boxes as annotated, and the columns `annotation_id`, `iscrowd` and
    `annotated_area`. Crowd regions are among the `instances` of an image, but not among its `objects`. Images
    without objects are left out. LVIS has no `file_name`: there the end of `coco_url` says where the image is, such
    as train2017/000000391895.jpg. The whole file is read at once; that of COCO's training images takes a few
    gigabytes for a moment.

    Attributes:
        categories: of the file, in its order.
    """

    def __init__(self, annotations: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> None:
        """Read a file.

        Args:
            annotations: the JSON file.
            images: the folder of its images. Where it is left out, the usual places are tried: for
                annotations/instances_val2017.json the folders val2017, images/val2017 and images beside
                annotations, and the places of the file and its parent.

        Raises:
            DataError: the file is missing, damaged, of another form or describes no masks; or none of its
                images was found, with where they were looked for.
        """
        self.path = Path(annotations)
        record = read_json(self.path)
        described, self._annotations, self.categories = _parse(record, self.path)
        check_not_empty(len(described), self.path, "masks (boxes, crowds and captions do not count)")
        self._images = sorted(described, key=lambda image: image.path.as_posix())
        self.names = _names(self._images)
        self._folders = [Path(images)] if images is not None else _usual_folders(self.path)
        if images is not None:
            check_folder(Path(images))
        self._check_found()

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        described = self._images[index]
        path = self._find(described.path)
        if path is None:
            raise DataError(f"The image {described.path} is not in {_listed(self._folders)}.")
        image = read_item_image(path)
        size_hw = (image.shape[0], image.shape[1])
        if described.size_hw is not None:
            check_size(image, described.size_hw, str(path))
        try:
            instances = self._annotations[described.rows].to_instances(size_hw, self.categories)
        except InstancesError as error:
            raise DataError(f"{self.path}, image {described.path}: {error}") from error
        return AnnotatedImage(self.names[index], image, instances, described.path.name, described.image_id)

    def _find(self, path: PurePosixPath) -> Path | None:
        """Where an image is: at its whole path, or at its name alone."""
        candidates = (folder / tail for tail in (path, path.name) for folder in self._folders)
        return next((candidate for candidate in candidates if _is_file(candidate)), None)

    def _check_found(self) -> None:
        tried = self._images[:IMAGES_TRIED]
        if not any(self._find(image.path) for image in tried):
            raise DataError(
                f"No image of {self.path} was found, such as {tried[0].path}. Looked in {_listed(self._folders)}. "
                "Give the folder of the images."
            )


def _parse(record: Any, path: Path) -> tuple[list[_Described], CocoAnnotations, tuple[Category, ...]]:
    """The images with objects, all annotations, image by image, and all categories."""
    described = []
    try:
        by_image: dict[Any, list[Any]] = {image["id"]: [] for image in record["images"]}
        for annotation in record["annotations"]:
            if annotation.get("segmentation"):
                by_image[annotation["image_id"]].append(annotation)
        annotations = CocoAnnotations.parse([item for items in by_image.values() for item in items])
        stop = 0
        for image in {image["id"]: image for image in record["images"]}.values():
            rows = slice(stop, stop + len(by_image[image["id"]]))
            stop = rows.stop
            image_id = image["id"] if isinstance(image["id"], int) else None
            one = _Described(_image_path(image), _size_hw(image), image_id, rows)
            if annotations[rows].has_objects:
                described.append(one)
        return described, annotations, read_categories(record)
    except FORM_ERRORS as error:
        raise DataError(f"{path}: {NOT_COCO} ({type(error).__name__}: {error}).") from error


def _image_path(image: Mapping[str, Any]) -> PurePosixPath:
    if image.get("file_name"):
        return PurePosixPath(str(image["file_name"]).replace("\\", "/"))
    split, name = str(image["coco_url"]).split("/")[-2:]
    return PurePosixPath(split, name)


def _size_hw(image: Mapping[str, Any]) -> SizeHW | None:
    if image.get("height") is None or image.get("width") is None:
        return None
    return int(image["height"]), int(image["width"])


def _names(images: list[_Described]) -> tuple[str, ...]:
    """The paths without suffix; with it where that would not tell images apart, and numbered as a last resort."""
    names = [printable(image.path.with_suffix("").as_posix()) for image in images]
    if len(set(names)) < len(names):
        names = [printable(image.path.as_posix()) for image in images]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(unique)


def _usual_folders(path: Path) -> list[Path]:
    """Where the images of an annotation file usually are, as far as there are such folders."""
    split = path.stem.rsplit("_", 1)[-1]  # of instances_val2017, val2017
    root = path.parent.parent
    folders = [root / split, root / "images" / split, root / "images", path.parent, path.parent / "images", root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
