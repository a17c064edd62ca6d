"""Annotated images at the size of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import BoolArray, FloatArray, PixelArray, SizeHW
from segany.core.boxes import mask_box
from segany.core.errors import DataError, check
from segany.core.preprocessing import Preprocessing
from segany.core.rle import Rle, decode_crop, mask_area
from segany.data.item import AnnotatedImage, TrainingItem
from segany.imaging.resize import extent, resize_pixels

LARGE_SCALE_JITTER = (0.1, 2.0)
"""The scales that SAM was trained at while its data was the output of the first two stages of the data engine.

On all of SA-1B, it was trained without augmentation (SAM, appendix A), and that is the default.
"""

CROP_ASPECT = (3 / 4, 4 / 3)
"""Lowest and highest ratio of the width to the height of a random resized crop."""

_CROP_TRIES = 10
"""Crops that are drawn before the largest one in the middle is taken instead."""

HALF_COVERED = 128
"""Of 255: a pixel belongs to a resized mask when the mask covers half of it or more."""

BoxXyxy: TypeAlias = tuple[float, float, float, float]
_Pixel = TypeVar("_Pixel", np.uint8, np.float32)

_JITTER, _FLIP, _DRAW = range(3)
"""What a random stream of an item is for: each has its own, so that changing one setting leaves the others."""


@dataclass(frozen=True)
class ItemConfig:
    """How an annotated image becomes an item. The defaults are those of SAM's training (appendix A).

    Attributes:
        side: S, of the model's input.
        resize: as in `Preprocessing`: "longest_side" for SAM, "square" for SAM 2.
        max_masks: at most so many masks of an image, drawn at random.
        max_mask_fraction: masks that cover more of the image, or of what is left of it, are dropped.
        jitter: lowest and highest factor of the image's size (large-scale jitter): above 1 it is cropped at
            random, below 1 padded. None for none; see `LARGE_SCALE_JITTER`.
        crop_area: lowest and highest share of the image's area that a random crop shows, with an aspect ratio in
            `CROP_ASPECT`, stretched to `side` x `side` (random resized crop, as in MAE). None for none.
        flip: probability of mirroring left and right.
        needs_masks: whether an image without masks is of no use. Where it is false, items have no masks, and those
            of their images are not read.

    Raises:
        ConfigError: a value is out of range.
    """

    side: int = 1024
    resize: Literal["longest_side", "square"] = "longest_side"
    max_masks: int = 64
    max_mask_fraction: float = 0.9
    jitter: tuple[float, float] | None = None
    crop_area: tuple[float, float] | None = None
    flip: float = 0.0
    needs_masks: bool = True

    def __post_init__(self) -> None:
        check(self.side >= 1, f"side must be at least 1, got {self.side}.")
        check(
            self.resize in ("longest_side", "square"),
            f"resize must be 'longest_side' or 'square', got {self.resize!r}.",
        )
        check(self.max_masks >= 1, f"max_masks must be at least 1, got {self.max_masks}.")
        check(0 < self.max_mask_fraction <= 1, f"max_mask_fraction must be in (0, 1], got {self.max_mask_fraction}.")
        check(0 <= self.flip <= 1, f"flip is a probability, from 0 to 1, got {self.flip}.")
        check(self.jitter is None or self.crop_area is None, "Give either jitter or crop_area, not both.")
        if self.crop_area is not None:
            check(
                len(self.crop_area) == 2 and 0 < self.crop_area[0] <= self.crop_area[1] <= 1,
                f"crop_area must be the lowest and the highest share, above 0 and up to 1, got {self.crop_area}.",
            )
        if self.jitter is not None:
            check(
                len(self.jitter) == 2 and 0 < self.jitter[0] <= self.jitter[1] <= 16,
                f"jitter must be the lowest and the highest scale, above 0 and up to 16, got {self.jitter}.",
            )

    def void_fields(self) -> Mapping[str, str]:
        """Fields that have no effect beside the values of others, each with the reason."""
        return {} if self.needs_masks else dict.fromkeys(("max_masks", "max_mask_fraction"), "items have no masks")

    @property
    def preprocessing(self) -> Preprocessing:
        """Of a model of that input; its normalization has no part in items."""
        return Preprocessing(input_size=self.side, resize=self.resize)


@dataclass(frozen=True)
class _View:
    """What an item shows of its image.

    Attributes:
        box_xyxy: the part of the image, in its pixels and fractions of them.
        size_hw: at which size.
        is_whole: whether that is all of the image, at the size it has for inference.
        is_flipped: whether it is mirrored afterwards.
    """

    box_xyxy: BoxXyxy
    size_hw: SizeHW
    is_whole: bool
    is_flipped: bool


def make_item(annotated: AnnotatedImage, config: ItemConfig, seed: int) -> TrainingItem | None:
    """Bring an annotated image to the size of training.

    Without jitter and flip the image is, bit for bit, what the model gets for inference. Masks go through the
    same resampling as the image and keep what covers half of a pixel or more: that is how a mask that is
    predicted in low resolution is compared with a true one, edges stay where they are, no holes open, and thin
    lines do not fall into dots as they do when only pixel centers are taken. A mask of which nothing is left
    is dropped.

    Args:
        annotated: image and masks. Only masks that are drawn are decoded.
        config: what to do.
        seed: of everything random, from 0. It becomes that of the item.

    Returns:
        None where no mask is left, if masks are needed.

    Raises:
        DataError: a mask is damaged.
    """
    size_hw = (annotated.image.shape[0], annotated.image.shape[1])
    view = _choose_view(size_hw, config, seed)
    masks = _draw_masks(annotated, view, config, seed) if config.needs_masks else []
    if config.needs_masks and not masks:
        return None
    height, width = view.size_hw
    padded = np.zeros((len(masks), config.side, config.side), dtype=np.bool_)
    for target, mask in zip(padded, masks, strict=True):
        target[:height, :width] = mask[:, ::-1] if view.is_flipped else mask
    boxes = np.array([mask_box(mask) for mask in padded], dtype=np.float32).reshape(-1, 4)
    image = _resize_image(annotated.image, view, config)
    return TrainingItem(annotated.name, image, padded, boxes, seed)


def _choose_view(size_hw: SizeHW, config: ItemConfig, seed: int) -> _View:
    height, width = size_hw
    is_flipped = bool(_stream(seed, _FLIP).random() < config.flip)
    whole = (0.0, 0.0, float(width), float(height))
    full_hw = config.preprocessing.resized_hw(size_hw)
    if config.crop_area is not None:
        box = _random_crop(size_hw, config.crop_area, _stream(seed, _JITTER))
        return _View(box, (config.side, config.side), is_whole=False, is_flipped=is_flipped)
    if config.jitter is None:
        return _View(whole, full_hw, is_whole=True, is_flipped=is_flipped)
    random = _stream(seed, _JITTER)
    scale = random.uniform(*config.jitter)
    spans = []
    for side, full in zip(size_hw, full_hw, strict=True):
        scaled = max(1, round(full * scale))
        shown = min(scaled, config.side)
        start = int(random.integers(scaled - shown + 1))
        # The last is exact where nothing is cut off: Pillow takes no box beyond the image.
        stop = float(side) if start + shown == scaled else (start + shown) * side / scaled
        spans.append((start * side / scaled, stop, shown))
    (top, bottom, shown_height), (left, right, shown_width) = spans
    return _View((left, top, right, bottom), (shown_height, shown_width), is_whole=False, is_flipped=is_flipped)


def _random_crop(size_hw: SizeHW, area: tuple[float, float], random: np.random.Generator) -> BoxXyxy:
    """A part of an image of a random area, the logarithm of its aspect ratio uniform."""
    height, width = size_hw
    low, high = (math.log(aspect) for aspect in CROP_ASPECT)
    for _ in range(_CROP_TRIES):
        pixels, aspect = random.uniform(*area) * height * width, math.exp(random.uniform(low, high))
        crop_w, crop_h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            left, top = int(random.integers(width - crop_w + 1)), int(random.integers(height - crop_h + 1))
            return float(left), float(top), float(left + crop_w), float(top + crop_h)
    side_w = min(width, max(1, round(height * CROP_ASPECT[1])))
    side_h = min(height, max(1, round(width / CROP_ASPECT[0])))
    left, top = (width - side_w) // 2, (height - side_h) // 2
    return float(left), float(top), float(left + side_w), float(top + side_h)


def _draw_masks(annotated: AnnotatedImage, view: _View, config: ItemConfig, seed: int) -> list[BoolArray]:
    """At most `max_masks` resized masks, in the order of the dataset."""
    kept: dict[int, BoolArray] = {}
    objects = annotated.objects
    for index in _stream(seed, _DRAW).permutation(len(objects)).tolist():
        encoding = objects.rle(index)
        if not _is_of_use(encoding, annotated.name, config.max_mask_fraction):
            continue
        mask = resize_encoded(encoding, view.size_hw, view.box_xyxy)
        if mask.any() and mask.mean() <= config.max_mask_fraction:
            kept[index] = mask
        if len(kept) == config.max_masks:
            break
    return [kept[index] for index in sorted(kept)]


def _is_of_use(encoding: Rle, name: str, max_fraction: float) -> bool:
    """Whether a mask is not empty and not too large; without decoding it."""
    try:
        area = mask_area(encoding)
    except ValueError as error:
        raise DataError(f"A mask of {name} is damaged. {error}") from error
    height, width = encoding["size"]
    return 0 < area <= max_fraction * height * width


def resize_encoded(encoding: Rle, size_hw: SizeHW, box_xyxy: BoxXyxy | None = None) -> BoolArray:
    """Resize a mask as images are resized, bilinear with averaging, and take what is half covered or more.

    It is Pillow's resizing, once along rows and once along columns, of no more rows and columns than the mask
    reaches: of a large image's many small masks, a third of the time. Against resizing a picture of the whole
    mask in one call, covered shares are rounded once more, by 1 in 255.

    Args:
        encoding: of a mask of H x W.
        size_hw: of the result.
        box_xyxy: the part of the mask to resize, all of it where left out.

    Returns:
        bool [h, w].

    Raises:
        ValueError: as for `decode_crop`.
    """
    crop, (x, y) = decode_crop(encoding)
    image_height, image_width = encoding["size"]
    left, top, right, bottom = box_xyxy or (0.0, 0.0, float(image_width), float(image_height))
    height, width = size_hw
    resized = np.zeros(size_hw, dtype=np.bool_)
    rows = np.zeros((crop.shape[0], image_width), dtype=np.uint8)
    rows[:, x : x + crop.shape[1]][crop] = 255
    narrow = _resized(rows, (len(rows), width), (left, 0, right, len(rows))) if len(rows) else rows
    first, last = extent(narrow.any(axis=0))
    if first == last:  # empty, or beside the part
        return resized
    columns = np.zeros((image_height, last - first), dtype=np.uint8)
    columns[y : y + len(rows)] = narrow[:, first:last]
    resized[:, first:last] = _resized(columns, (height, last - first), (0, top, last - first, bottom)) >= HALF_COVERED
    return resized


def _resize_image(image: PixelArray, view: _View, config: ItemConfig) -> PixelArray | FloatArray:
    resized: PixelArray | FloatArray
    if view.is_whole:
        resized = resize_pixels(image, config.preprocessing)
    elif config.resize == "square":  # in floating-point numbers, as SAM 2 has it
        channels = [image[..., channel].astype(np.float32) for channel in range(3)]
        resized = np.stack([_resized(channel, view.size_hw, view.box_xyxy) for channel in channels], axis=-1)
    else:
        resized = _resized(image, view.size_hw, view.box_xyxy)
    return resized[:, ::-1].copy() if view.is_flipped else resized


def _resized(pixels: npt.NDArray[_Pixel], size_hw: SizeHW, box_xyxy: BoxXyxy) -> npt.NDArray[_Pixel]:
    height, width = size_hw
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box_xyxy))


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])
