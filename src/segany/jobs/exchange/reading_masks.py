"""Label maps of an import: pictures whose values are objects, and the names of the values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from segany.core.arrays import SizeHW
from segany.core.instance import NO_ID
from segany.core.instances import Instances
from segany.data.formats.label_map import NAME_FILES, LabelNames, MaskReader
from segany.data.formats.mask_image import MaskOptions
from segany.data.mask_folder import MASK_ENDINGS, MASK_FOLDERS
from segany.jobs.exchange.bundle import Bundle
from segany.jobs.exchange.reading import (
    ANNOTATION_ID,
    Entry,
    Found,
    Reading,
    image_name,
    is_image,
    stem_of,
    without_folder,
)


def read_label_maps(bundle: Bundle) -> Reading:
    """The pictures in a folder called masks, or all pictures where there is no such folder.

    masks/a.png has all objects of a.jpg; masks/a/1.png, where there is no image of that name, one object of it.
    """
    reading = Reading()
    pictures = [name for name in bundle.names if is_image(name)]
    masks = [name for name in pictures if without_folder(name, MASK_FOLDERS) != name] or pictures
    images = {stem_of(image_name(name)) for name in pictures if name not in masks}
    reading.used.update(masks)
    reading.used.update(name for name in bundle.names if name.lower().endswith(".json") or _is_names(name))
    parts: dict[str, list[str]] = {}
    for name in masks:
        stem = stem_of(without_folder(name, MASK_FOLDERS))
        parent = stem.rpartition("/")[0]
        if parent and parent in images and _image_stem(stem, images) is None:
            parts.setdefault(parent, []).append(name)
        else:
            image = _image_stem(stem, images) or stem
            reading.entries.append(Entry(image, name, None, _reader(bundle, [name]), is_stem=True))
    for image, names in parts.items():
        reading.entries.append(Entry(image, names[0], None, _reader(bundle, names, is_one=True), is_stem=True))
    return reading


def _image_stem(stem: str, images: set[str]) -> str | None:
    """The image that a mask belongs to: of the same name, or without an ending such as _mask."""
    if stem in images:
        return stem
    endings = (ending for ending in MASK_ENDINGS if ending and stem.endswith(ending))
    return next((stem.removesuffix(ending) for ending in endings if stem.removesuffix(ending) in images), None)


def _is_names(name: str) -> bool:
    return PurePosixPath(name).name in NAME_FILES


def _names_file(bundle: Bundle, mask: str) -> str | None:
    """The file that names the values of a label map: its own, or one for all in a folder above it."""
    folders = [*PurePosixPath(mask).parents]
    candidates = [f"{stem_of(mask)}.json", *(str(folder / name) for folder in folders for name in NAME_FILES)]
    return next((name for name in candidates if name in bundle), None)


def _reader(bundle: Bundle, names: list[str], *, is_one: bool = False) -> Callable[[SizeHW], Found]:
    def read(size_hw: SizeHW) -> Found:
        file = None if is_one else _names_file(bundle, names[0])
        label_names = LabelNames.none() if file is None else LabelNames.parse(bundle.read(file), file)
        reader = MaskReader(MaskOptions("auto" if file is None else "labels"))
        found = [
            label_names.to_instances(reader.read(bundle.read(name), name, is_one_object=is_one), size_hw)
            for name in names
        ]
        instances = Instances.concatenate(found)
        attributes = [{} if number == NO_ID else {ANNOTATION_ID: int(number)} for number in instances.object_ids]
        return Found(instances, attributes)

    return read
