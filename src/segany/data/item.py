"""Annotated images, the items of datasets; and training items, which are resized to the model's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.errors import DataError
from segany.core.instances import Instances


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its instances, which datasets yield and formats write.

    Attributes:
        name: unique name of the image in its dataset: its path relative to the root, without suffix.
        image: uint8 [H, W, 3].
        instances: instances of the image's size. They include crowd regions of COCO; see `objects`.
        file_name: name of the image file, for formats that store it.
        image_id: id of the image in its dataset, if it has one.

    Raises:
        DataError: the instances do not have the size of the image.
    """

    name: str
    image: PixelArray
    instances: Instances
    file_name: str = ""
    image_id: int | None = None

    def __post_init__(self) -> None:
        (height, width), (mask_height, mask_width) = self.image.shape[:2], self.instances.size_hw
        if (height, width) != (mask_height, mask_width):
            raise DataError(
                f"{self.name} is {width} wide and {height} high, but its masks are {mask_width} wide and "
                f"{mask_height} high."
            )

    @cached_property
    def objects(self) -> Instances:
        """The instances without crowd regions (`iscrowd`), which training and evaluation use.

        A crowd region covers many objects with one mask, and is therefore not an object.
        """
        iscrowd = self.instances.columns.get("iscrowd", np.zeros(0)).astype(np.bool_)
        return self.instances[~iscrowd] if iscrowd.any() else self.instances


class Dataset(Protocol):
    """Annotated images by index. They can be read in any process and in any order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images, in the order of their indices. The order is the same on every machine."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> AnnotatedImage:
        """Read one.

        Raises:
            DataError: it is damaged, or its masks do not fit its image; the message says which and how.
        """
        ...


def omitted_by(dataset: object) -> dict[str, int]:
    """What a dataset, or the one that a subset is of, leaves out without reading it: how many, by what it is."""
    omitted: Mapping[str, int] = getattr(dataset, "omitted", {})
    return {what: count for what, count in omitted.items() if count}


@dataclass(frozen=True)
class SkippedItem:
    """An image or video of a dataset that could not be read.

    Attributes:
        name: its name in the dataset.
        reason: the error message.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class TrainingItem:
    """An annotated image that is resized to the model's input.

    Attributes:
        name: name of the image in its dataset.
        image: uint8 [h, w, 3], with h and w at most S, the side of the model's input; float32 in 0..255 for models that
            resize in floating point (SAM 2). The image is at the top left of the input. The processor pads it at the
            right and bottom.
        masks: bool [N, S, S], none of which is empty; [0, S, S] if masks, or all but their boxes, are not needed.
        boxes_xyxy: float32 [N, 4], boxes of the masks, in pixels of the model's input.
        seed: seed of all random numbers for this item in this epoch. It does not depend on the process or the batch.
    """

    name: str
    image: PixelArray | FloatArray
    masks: BoolArray
    boxes_xyxy: FloatArray
    seed: int
