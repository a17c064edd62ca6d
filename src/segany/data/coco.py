"""COCO's instances JSON, and that of LVIS: one file that describes many images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segany.core.arrays import SizeHW
from segany.core.errors import DataError
from segany.data.annotations import encode_segmentations, read_json
from segany.data.folders import check_folder, check_not_empty, check_size, printable, read_item_image
from segany.data.item import AnnotatedImage

IMAGES_TRIED = 100
"""If none of the first so many images is in any folder, the folder is not known; later ones are damage."""


@dataclass
class _Described:
    """What the file says of an image.

    Attributes:
        path: of the image, from a folder of images.
        size_hw: None where the file does not say.
        segmentations: of its objects, as they are in the file, or polygons as arrays, which are smaller.
    """

    path: PurePosixPath
    size_hw: SizeHW | None
    segmentations: list[Any] = field(default_factory=list)


class CocoDataset:
    """A `Dataset` of the images with masks that a JSON file describes.

    Regions marked as crowds are no objects and are left out; so are images without any mask. LVIS has no
    `file_name`: there the end of `coco_url` says where the image is, such as train2017/000000391895.jpg.
    The whole file is read at once; that of COCO's training images takes a few gigabytes for a moment.
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
        described = [image for image in _described(record, self.path) if image.segmentations]
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
        what = f"{self.path}, image {described.path}"
        return AnnotatedImage(
            self.names[index], image, tuple(encode_segmentations(described.segmentations, size_hw, what))
        )

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


def _described(record: Any, path: Path) -> Iterable[_Described]:
    try:
        images = {image["id"]: _Described(_image_path(image), _size_hw(image)) for image in record["images"]}
        for annotation in record["annotations"]:
            if not annotation.get("iscrowd") and annotation.get("segmentation"):
                segmentation = annotation["segmentation"]
                images[annotation["image_id"]].segmentations.append(_compact(segmentation))
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(
            f'{path} is no instances file of COCO or LVIS: that has "images" with an "id" and a "file_name" or '
            f'"coco_url" each, and "annotations" with an "image_id" and a "segmentation" each '
            f"({type(error).__name__}: {error})."
        ) from error
    return images.values()


def _image_path(image: Mapping[str, Any]) -> PurePosixPath:
    if image.get("file_name"):
        return PurePosixPath(str(image["file_name"]).replace("\\", "/"))
    split, name = str(image["coco_url"]).split("/")[-2:]
    return PurePosixPath(split, name)


def _size_hw(image: Mapping[str, Any]) -> SizeHW | None:
    if image.get("height") is None or image.get("width") is None:
        return None
    return int(image["height"]), int(image["width"])


def _compact(segmentation: Any) -> Any:
    """Lists of numbers as arrays, where they are that: a quarter of the memory. What is damaged stays as it is."""
    if not isinstance(segmentation, list):
        return segmentation
    try:
        return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (TypeError, ValueError):
        return segmentation


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
