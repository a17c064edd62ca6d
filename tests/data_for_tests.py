"""Little datasets, in memory and in the files that datasets come in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segany.core.arrays import BoolArray, PixelArray, SizeHW
from segany.core.errors import DataError
from segany.core.instances import Instances
from segany.core.rle import Rle, encode_masks
from segany.data.item import AnnotatedImage


def picture(size_hw: SizeHW = (6, 8), seed: int = 0) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def block(size_hw: SizeHW, top: int, left: int, bottom: int, right: int) -> BoolArray:
    mask = np.zeros(size_hw, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def rle(mask: BoolArray) -> Rle:
    return encode_masks(mask)[0]


def save(path: Path, array: Any, palette: Sequence[int] | None = None) -> Path:
    """Write an array as a picture, in the format that the path ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def save_json(path: Path, record: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def sa1b_record(masks: Sequence[BoolArray], size_hw: SizeHW) -> dict[str, Any]:
    """What SA-1B has for an image, with the fields that are not read as well."""
    image = {"image_id": 1, "width": size_hw[1], "height": size_hw[0], "file_name": "sa_1.jpg"}
    annotations = [
        {"id": number, "segmentation": rle(mask), "area": int(mask.sum()), "predicted_iou": 0.9}
        for number, mask in enumerate(masks)
    ]
    return {"image": image, "annotations": annotations}


def encoded(array: Any, format_name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(buffer, format=format_name)
    return buffer.getvalue()


def save_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@dataclass(frozen=True)
class Shapes:
    """A `Dataset` in memory: image k is of the color k, and so many of them damaged or without masks."""

    count: int = 10
    damaged: frozenset[int] = frozenset()
    without_masks: frozenset[int] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"folder/{index:03d}" for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> AnnotatedImage:
        if index in self.damaged:
            raise DataError(f"image {index} is damaged")
        image = np.full((6, 8, 3), index, dtype=np.uint8)
        instances = Instances.from_masks(np.stack([block((6, 8), 0, 0, 2, 3), block((6, 8), 3, 4, 6, 8)]))
        return AnnotatedImage(self.names[index], image, instances[:0] if index in self.without_masks else instances)
