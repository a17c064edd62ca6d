"""COCO's instances JSON, and that of LVIS: one file that describes many images."""

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
    read_categories,
    whole_number,
)
from segany.data.item import AnnotatedImage

_logger = logging.getLogger(__name__)

IMAGES_TRIED = 100
"""If none of the first so many images is in any folder, the folder is not known; later ones are damage."""


@dataclass(frozen=True)
class CocoImage:
    """What a file says of an image.

    Attributes:
        id: as `normal_id` gives it.
        path: of the image, from a folder of images; not checked, it may lead anywhere.
        size_hw: None where the file does not say.
        rows: its annotations among those of the file.
    """

    id: Any
    path: PurePosixPath
    size_hw: SizeHW | None
    rows: slice

    @property
    def image_id(self) -> int | None:
        """None where it is no whole number."""
        return None if whole_number(self.id) == NO_ID else self.id


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What a file says, without its images.

    Attributes:
        images: all that it lists.
        annotations: those with a mask, image by image.
        categories: all of them, in the order of the file.
        omitted: what was left out, and how many, as of `CocoDataset`.
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
    """A `Dataset` of the images with masks that a JSON file describes.

    Instances have their categories, boxes as annotated, and the columns `annotation_id`, `iscrowd` and
    `annotated_area`. Crowd regions are among the `instances` of an image, but not among its `objects`. Images
    without objects are left out. LVIS has no `file_name`: there the end of `coco_url` says where the image is, such
    as train2017/000000391895.jpg. The whole file is read at once; that of COCO's training images takes a few
    gigabytes for a moment.

    Attributes:
        categories: of the file, in its order.
        omitted: what was left out, and how many: annotations without a mask or of images that are not listed, and
            images without objects.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        trust_paths: bool = False,
    ) -> None:
        """Read a file.

        Args:
            annotations: the JSON file.
            images: the folder of its images. Where it is left out, the usual places are tried: for
                annotations/instances_val2017.json the folders val2017, images/val2017 and images beside
                annotations, and the places of the file and its parent.
            trust_paths: read images whose names are absolute paths or lead out of the folder (../a.jpg). A file of
                somebody else's could name any file of this machine.

        Raises:
            DataError: the file is missing, damaged, of another form or describes no masks; two images have one id
                or are one file; an image lies outside of the folder and is not to be trusted; or none of the images
                was found, with where they were looked for.
        """
        self.path = Path(annotations)
        parsed = CocoFile.parse(read_json(self.path), str(self.path))
        self._annotations, self.categories = parsed.annotations, parsed.categories
        self.omitted = parsed.omitted
        _check_inside(parsed.images, self.path, trust_paths=trust_paths)
        described = [image for image in parsed.images if parsed.annotations[image.rows].has_objects]
        check_not_empty(len(described), self.path, "masks (boxes, crowds and captions do not count)")
        self._images = sorted(described, key=lambda image: image.path.as_posix())
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
        """Raise `DataError` where two images of the file are one file: masks of one would be on the other."""
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
    """All images with their annotations, image by image, and all categories."""
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
        described, stop = [], 0
        for number, image in images.items():
            rows = slice(stop, stop + len(by_image[number]))
            stop = rows.stop
            described.append(CocoImage(number, _image_path(image), _size_hw(image), rows))
        omitted["images without objects"] = sum(not annotations[one.rows].has_objects for one in described)
        categories = read_categories(record)
    except InstancesError as error:
        raise DataError(f"{what}: {error}") from error
    except FORM_ERRORS as error:
        raise DataError(f"{what}: {NOT_COCO} ({type(error).__name__}: {error}).") from error
    if unlisted is not None:
        count = omitted["annotations of images that are not listed"]
        _logger.warning("%s: %s annotations are left out, since their images are not listed, such as image %s.",
                        what, f"{count:,}", unlisted)  # fmt: skip
    return CocoFile(described, annotations, categories, {what: count for what, count in omitted.items() if count})


def _check_inside(images: Sequence[CocoImage], path: Path, *, trust_paths: bool) -> None:
    """Raise `DataError` where the name of an image names no file, or one outside of the folder of the images."""
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
    """The paths without suffix; with it where that would not tell images apart, and numbered as a last resort."""
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
    """Where the images of an annotation file usually are, as far as there are such folders."""
    split = path.stem.rsplit("_", 1)[-1]  # of instances_val2017, val2017
    root = path.parent.parent
    folders = [root / split, root / "images" / split, root / "images", path.parent, path.parent / "images", root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
