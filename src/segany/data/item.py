"""What datasets hold: annotated images; and what training takes: the same at its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.rle import Rle, coco_bbox_xywh, decode_mask


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and the masks of N objects in it. Masks stay run-length encoded until one is asked for.

    Attributes:
        name: of the image in its dataset, unlike all others: a path from the dataset's root, without suffix.
        image: uint8 [H, W, 3].
        encodings: N masks of the image's size.
    """

    name: str
    image: PixelArray
    encodings: tuple[Rle, ...]

    def __len__(self) -> int:
        return len(self.encodings)

    def mask(self, index: int) -> BoolArray:
        """bool [H, W], decoded each time."""
        return decode_mask(self.encodings[index])

    def boxes_xyxy(self) -> FloatArray:
        """float32 [N, 4]: the first column and row of each mask, and one past its last."""
        boxes = np.array([coco_bbox_xywh(encoding) for encoding in self.encodings], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes


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
