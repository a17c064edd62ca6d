"""Datasets of images that each have a JSON file of the same name with their masks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segany.core.errors import DataError, InstancesError
from segany.core.instances import Instances
from segany.data.annotations import read_json
from segany.data.folders import (
    by_stem,
    check_folder,
    check_not_empty,
    files_below,
    images_below,
    name_of,
    read_item_image,
    stem_key,
)
from segany.data.item import AnnotatedImage


class RecordFolder(ABC):
    """A `Dataset` of images and JSON files, in the same folder or in separate folders, at any depth.

    An image belongs to the JSON file of the same name, without suffix, in the same folder, or else anywhere below the
    root. Images without a JSON file are left out. A JSON file without an image is an item that cannot be read, so that
    it is reported like a damaged image.

    Attributes:
        left_out: names of the images without a JSON file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the files, without reading them.

        Raises:
            DataError: the folder does not exist, it holds no image with a JSON file, or several files share a name.
        """
        self.folder = Path(folder)
        check_folder(self.folder)
        pairs, left = _paired(images_below(self.folder), files_below(self.folder, {".json"}))
        check_not_empty(sum(pair.image is not None for pair in pairs), self.folder, "image with its JSON file")
        self._pairs = sorted(pairs, key=lambda pair: name_of(pair.path, self.folder))
        self.names = tuple(name_of(pair.path, self.folder) for pair in self._pairs)
        self.left_out = tuple(name_of(image, self.folder) for image in left)

    @property
    def omitted(self) -> Mapping[str, int]:
        """Number of images that are left out, by reason."""
        return {"images without masks": len(self.left_out)}

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        pair = self._pairs[index]
        if pair.image is None:
            raise DataError(f"{pair.record} has no image of the same name.")
        record = read_json(pair.record)
        try:
            instances, image_id = self._parse(record)
        except InstancesError as error:
            raise DataError(f"{pair.record}: {error}") from error
        image = read_item_image(pair.image, instances.size_hw)
        return AnnotatedImage(self.names[index], image, instances, pair.image.name, image_id)

    @abstractmethod
    def _parse(self, record: Any) -> tuple[Instances, int | None]:
        """The instances of a JSON file, and the id of its image; raises `InstancesError`."""


@dataclass(frozen=True)
class _Pair:
    """A JSON file, and the image of the same name if there is one."""

    record: Path
    image: Path | None

    @property
    def path(self) -> Path:
        """The file whose name is the name of the item."""
        return self.image or self.record


def _paired(images: list[Path], records: list[Path]) -> tuple[list[_Pair], list[Path]]:
    """All pairs, and the images without a JSON file."""
    in_place = {(record.parent, stem_key(record)): record for record in records}
    pairs, alone = [], []
    for image in images:
        record = in_place.pop((image.parent, stem_key(image)), None)
        if record is None:
            alone.append(image)
        else:
            pairs.append(_Pair(record, image))
    elsewhere = by_stem(in_place.values())
    left = []
    for stem, image in by_stem(alone).items():
        record = elsewhere.pop(stem, None)
        if record is None:
            left.append(image)
        else:
            pairs.append(_Pair(record, image))
    return pairs + [_Pair(record, None) for record in elsewhere.values()], left
