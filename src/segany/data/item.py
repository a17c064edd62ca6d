"""What datasets hold: annotated images; and what training takes: the same at its size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.errors import DataError
from segany.core.instances import Instances


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its instances: what datasets hold, and what is written.

    Attributes:
        name: of the image in its dataset, unlike all others: a path from the dataset's root, without suffix.
        image: uint8 [H, W, 3].
        instances: of the image's size. Crowd regions of COCO are among them; see `objects`.
        file_name: of the image file, where formats have a place for it.
        image_id: number of the image in its dataset; None where that has none.

    Raises:
        DataError: the instances are of another size than the image.
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
        """The instances that are objects: what training and evaluation use.

        A crowd region (`iscrowd`) covers many objects under one mask, so that it is none itself.
        """
        iscrowd = self.instances.columns.get("iscrowd", np.zeros(0)).astype(np.bool_)
        return self.instances[~iscrowd] if iscrowd.any() else self.instances


class Dataset(Protocol):
    """Annotated images by number. Reading one may be done in any process, in any order."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all images, in the order of their numbers; the same on every machine."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> AnnotatedImage:
        """Read one.

        Raises:
            DataError: it is damaged, or its masks do not fit its image; the message says which and how.
        """
        ...


@dataclass(frozen=True)
class SkippedItem:
    """An image or video of a dataset that could not be read, and why.

    Attributes:
        name: in its dataset.
        reason: the message of the error.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class TrainingItem:
    """An annotated image at the size of training.

    Attributes:
        name: of the image in its dataset.
        image: uint8 [h, w, 3], h and w at most S, the side of the model's input; float32 in the same units for
            models that resize in floating-point numbers (SAM 2). It lies at the top left of the input; what is
            right of it and below is padding, which the model makes itself.
        masks: bool [N, S, S], none of them empty; N is 0 where masks are not needed.
        boxes_xyxy: float32 [N, 4], in pixels of the model's input.
        seed: of everything random that training does with this item in this epoch: the same whatever process
            meets it, in whatever batch.
    """

    name: str
    image: PixelArray | FloatArray
    masks: BoolArray
    boxes_xyxy: FloatArray
    seed: int
