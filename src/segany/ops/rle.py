"""Masks as COCO run-length encodings: a few hundred bytes instead of an image full.

pycocotools does the work; here are the shapes and the text form that fits into JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as coco_mask

from segany.types import BoolArray


class Rle(TypedDict):
    """A mask of COCO's: `size` is height and width, `counts` the compressed run lengths as text."""

    size: list[int]
    counts: str


def encode_masks(masks: BoolArray) -> list[Rle]:
    """Encode masks.

    Args:
        masks: bool [..., H, W].

    Returns:
        One encoding a mask, the leading axes flattened in C order.
    """
    stack = masks.reshape(-1, *masks.shape[-2:])
    encodings = []
    for mask in stack:  # one at a time: pycocotools copies what it encodes
        encoding = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        encodings.append(Rle(size=[int(side) for side in encoding["size"]], counts=encoding["counts"].decode("ascii")))
    return encodings


def decode_mask(encoding: Rle) -> BoolArray:
    """Decode one encoding: bool [H, W].

    Raises:
        ValueError: the run lengths do not add up to the size.
    """
    return np.asarray(coco_mask.decode(encoding), dtype=np.bool_)


def decode_masks(encodings: Sequence[Rle]) -> BoolArray:
    """Decode what `encode_masks` returned: bool [K, H, W].

    Raises:
        ValueError: there are no encodings, or they are of different sizes.
    """
    if len({tuple(encoding["size"]) for encoding in encodings}) != 1:
        raise ValueError("Give at least one encoding, all of the same size.")
    return np.stack([decode_mask(encoding) for encoding in encodings])


def coco_bbox_xywh(encoding: Rle) -> tuple[float, float, float, float]:
    """Left, top, width and height in pixels, as COCO counts them: a single pixel is 1 wide. Zeros for an empty mask."""
    x, y, width, height = coco_mask.toBbox(encoding).tolist()
    return x, y, width, height
