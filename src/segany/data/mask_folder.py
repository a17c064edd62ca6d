"""Datasets of an image folder and a mask folder with files of the same names."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segany.core.errors import DataError, InstancesError
from segany.core.instances import Instances
from segany.data.folders import (
    by_key,
    check_folder,
    check_not_empty,
    images_below,
    name_of,
    nfc,
    read_item_image,
    subfolders,
)
from segany.data.formats.label_map import LabelNames, MaskReader, has_void
from segany.data.formats.mask_image import MaskOptions, Objects
from segany.data.item import AnnotatedImage

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "gt")
"""Names of the two folders, in upper or lower case; the first that exists is used."""

MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt")
"""Suffixes of the name of a mask after the name of its image."""


@dataclass(frozen=True)
class _Item:
    """An image and its masks: a label map, and images of one mask each (`parts`)."""

    name: str
    image: Path | None
    label_map: Path | None
    parts: tuple[Path, ...]


class MaskFolder:
    """A `Dataset` of images/NAME.jpg with masks/NAME.png, or with a folder masks/NAME of one image per object.

    Both folders may have the same subfolders. A mask image with the name of an image is a label map, unless `objects`
    differs; a mask image in a folder of that name is one mask. Images without masks are left out. A mask without an
    image is an item that cannot be read, so that it is reported like a damaged image.

    Values of label maps are classes if a file names them: `labels.json` or `classes.txt` in the mask folder or its
    parent, or a JSON file beside a label map, for this map only. See `LabelNames.read`.

    Attributes:
        left_out: names of the images without masks.
        label_names: names of the values of all label maps without a JSON file of their own.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        objects: Objects = "auto",
        *,
        masks: str | os.PathLike[str] | None = None,
        mask_threshold: float = 0.5,
    ) -> None:
        """List the files, without reading them.

        Args:
            folder: the folder that contains both folders; the image folder if `masks` is given.
            objects: the objects of a label map: each label except 0 ("labels"), the "foreground" as one object, or
                each connected component of it ("parts"). "auto" is "foreground" for images with soft edges
                (antialiased, JPEG), and "labels" otherwise.
            masks: the mask folder.
            mask_threshold: threshold of foregrounds and soft edges, as a share of the highest value of an image.

        Raises:
            DataError: a folder is missing, no image has a mask, or two files differ only in their suffixes.
            ConfigError: there is no such kind of objects, or the threshold is out of range.
        """
        self._reader = MaskReader(MaskOptions(objects, mask_threshold))
        root = Path(folder)
        check_folder(root)
        self.images = root if masks is not None else named_folder(root, IMAGE_FOLDERS)
        self.masks = Path(masks) if masks is not None else named_folder(root, MASK_FOLDERS)
        check_folder(self.masks)
        self.label_names = LabelNames.beside((self.masks, root))
        images = (image for image in images_below(self.images) if self.masks not in image.parents)
        items = _paired(_by_name(images, self.images), _by_name(images_below(self.masks), self.masks))
        self._items = [item for item in items if item.label_map is not None or item.parts]
        self.left_out = tuple(item.name for item in items if item.label_map is None and not item.parts)
        matching = sum(item.image is not None for item in self._items)
        check_not_empty(matching, self.images, f"image that has a mask of the same name in {self.masks}")
        self.names = tuple(item.name for item in self._items)

    @property
    def omitted(self) -> Mapping[str, int]:
        """Number of images that are left out, by reason."""
        return {"images without masks": len(self.left_out)}

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        item = self._items[index]
        if item.image is None:
            raise DataError(f"{item.label_map} has no image of the same name in {self.images}.")
        found = [(part, self._reader.read(part, str(part), is_one_object=True)) for part in item.parts]
        if item.label_map is not None:
            masks = self._reader.read(item.label_map, str(item.label_map), void=self._has_void)
            found.insert(0, (item.label_map, masks))
        sizes = {(mask["size"][0], mask["size"][1]) for _, masks in found for mask in masks.values()}
        if len(sizes) > 1:
            raise DataError(f"The masks of {item.image} are of different sizes: {sorted(sizes)}, height and width.")
        image = read_item_image(item.image, next(iter(sizes), None))
        size_hw = (image.shape[0], image.shape[1])
        try:
            parts = [self._names_of(file, item).to_instances(masks, size_hw) for file, masks in found]
            instances = Instances.concatenate(parts)
        except InstancesError as error:
            raise DataError(f"{item.image}: {error}") from error
        return AnnotatedImage(item.name, image, instances, item.image.name)

    @functools.cached_property
    def _has_void(self) -> bool:
        """Whether `VOID` is void in all label maps of the dataset; a single map may not show it."""
        return has_void(item.label_map for item in self._items if item.label_map is not None)

    def _names_of(self, file: Path, item: _Item) -> LabelNames:
        if self._reader.options.objects not in ("auto", "labels") or file != item.label_map:
            return LabelNames.none()
        own = file.with_suffix(".json")
        return LabelNames.read(own) if own.is_file() else self.label_names


def named_folder(root: Path, names: Iterable[str]) -> Path:
    """Return the subfolder with the first of some names that exists, in upper or lower case.

    Raises:
        DataError: there is none.
    """
    found = {folder.name.lower(): folder for folder in subfolders(root)}
    for name in names:
        if name in found:
            return found[name]
    raise DataError(f"{root} has no folder {', '.join(names)}; it has {', '.join(sorted(found)) or 'no folders'}.")


def _by_name(files: Iterable[Path], root: Path) -> dict[str, Path]:
    # Names may be in different Unicode forms, which some systems change when files are copied.
    return by_key(files, lambda file: nfc(name_of(file, root)))


def _paired(images: dict[str, Path], masks: dict[str, Path]) -> list[_Item]:
    folders: dict[str, list[str]] = {}
    for name in masks:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    items = []
    left = dict(masks)
    for name, image in images.items():
        label_map = next((left.pop(name + ending) for ending in MASK_ENDINGS if name + ending in left), None)
        parts = tuple(left.pop(part) for part in sorted(folders.get(name, ())) if part in left)
        items.append(_Item(name, image, label_map, parts))
    items.extend(_Item(name, None, mask, ()) for name, mask in left.items())
    return sorted(items, key=lambda item: item.name)
