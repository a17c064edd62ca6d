"""Augmentation and resizing of annotated images to training items."""

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
from segany.core.errors import check, check_numbers
from segany.core.preprocessing import Preprocessing
from segany.core.rle import Rle, decode_crop, mask_area
from segany.data.item import AnnotatedImage, TrainingItem
from segany.imaging.resize import extent, resize_pixels

LARGE_SCALE_JITTER = (0.1, 2.0)
"""The scale range of SAM's large-scale jitter, used in training on the first two stages of the data engine.

On SA-1B, SAM was trained without augmentation (SAM, appendix A), which is the default.
"""

CROP_ASPECT = (3 / 4, 4 / 3)
"""Range of the aspect ratio (width to height) of a random resized crop."""

_CROP_TRIES = 10
"""Number of random crops that are tried before the largest center crop is taken."""

HALF_COVERED = 128
"""Threshold of a resized mask in 0..255: a pixel belongs to the mask if at least half of it is covered."""

BoxXyxy: TypeAlias = tuple[float, float, float, float]
_Pixel = TypeVar("_Pixel", np.uint8, np.float32)

_JITTER, _FLIP, _DRAW = range(3)
"""Streams of random numbers of an item. They are separate, so that one setting does not affect the others."""


@dataclass(frozen=True)
class ItemConfig:
    """Configuration of resizing and augmentation. The defaults are those of SAM's training (appendix A).

    Attributes:
        side: side S of the model's input.
        resize: as in `Preprocessing`: "longest_side" for SAM, "square" for SAM 2.
        max_masks: largest number of masks of an item. If an image has more, a random sample is taken.
        max_mask_fraction: largest share of the image, or of its crop, that a mask may cover. Larger masks are dropped.
        jitter: range of the scale of large-scale jitter. Above 1 the image is cropped at random, below 1 it is padded.
            None for no jitter; see `LARGE_SCALE_JITTER`.
        crop_area: range of the area of a random resized crop, as a share of the image, as in MAE. The aspect ratio is
            in `CROP_ASPECT`, and the crop is resized to `side` x `side`. None for no crop.
        flip: probability of a horizontal flip.
        needs_masks: whether items need masks. Otherwise they have none, and the masks of images are not decoded.
        boxes_only: whether items have the boxes of their masks, but not the masks, which take a megabyte each.

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
    boxes_only: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)
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
        """Fields that have no effect with the values of the others, each with the reason."""
        fields = ("max_masks", "max_mask_fraction", "boxes_only")
        return {} if self.needs_masks else dict.fromkeys(fields, "items have no masks")

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a model with this input. Items do not depend on its normalization."""
        return Preprocessing(input_size=self.side, resize=self.resize)


@dataclass(frozen=True)
class _View:
    """The crop, size and flip of an item.

    Attributes:
        box_xyxy: the crop, in pixels of the image and fractions of them.
        size_hw: size of the resized crop.
        is_whole: whether the crop is the whole image, at its size in inference.
        is_flipped: whether it is flipped horizontally after resizing.
    """

    box_xyxy: BoxXyxy
    size_hw: SizeHW
    is_whole: bool
    is_flipped: bool


def make_item(annotated: AnnotatedImage, config: ItemConfig, seed: int) -> TrainingItem | None:
    """Augment and resize an annotated image to a training item.

    Without augmentation, the image is bit for bit the same as in inference. Masks are resampled in the same way as the
    image, and thresholded at half coverage. With this threshold, edges do not move, no holes appear, and thin lines are
    not broken into dots as with nearest-neighbor resampling. Masks that become empty are dropped.

    Args:
        annotated: the image and its masks. Only sampled masks are decoded.
        config: configuration of resizing and augmentation.
        seed: random seed, not negative. It is also the seed of the item.

    Returns:
        The item; None if masks are needed and the image has no usable mask.

    Raises:
        DataError: a mask is damaged.
    """
    size_hw = (annotated.image.shape[0], annotated.image.shape[1])
    view = _choose_view(size_hw, config, seed)
    masks = _draw_masks(annotated, view, config, seed) if config.needs_masks else []
    if config.needs_masks and not masks:
        return None
    if view.is_flipped:
        masks = [mask[:, ::-1] for mask in masks]
    boxes = np.array([mask_box(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    height, width = view.size_hw
    kept = [] if config.boxes_only else masks
    padded = np.zeros((len(kept), config.side, config.side), dtype=np.bool_)
    for target, mask in zip(padded, kept, strict=True):
        target[:height, :width] = mask
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
        # The end is exact where nothing is cropped, because Pillow refuses a box beyond the image.
        stop = float(side) if start + shown == scaled else (start + shown) * side / scaled
        spans.append((start * side / scaled, stop, shown))
    (top, bottom, shown_height), (left, right, shown_width) = spans
    return _View((left, top, right, bottom), (shown_height, shown_width), is_whole=False, is_flipped=is_flipped)


def _random_crop(size_hw: SizeHW, area: tuple[float, float], random: np.random.Generator) -> BoxXyxy:
    """A random crop with uniform area and log-uniform aspect ratio."""
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
    """Sample at most `max_masks` masks, and resize them: bool [h, w] each, in the order of the dataset."""
    kept: dict[int, BoolArray] = {}
    objects = annotated.objects
    for index in _stream(seed, _DRAW).permutation(len(objects)).tolist():
        encoding = objects.rle(index)
        if not _is_of_use(encoding, config.max_mask_fraction):
            continue
        mask = resize_encoded(encoding, view.size_hw, view.box_xyxy)
        if mask.any() and mask.mean() <= config.max_mask_fraction:
            kept[index] = mask
        if len(kept) == config.max_masks:
            break
    return [kept[index] for index in sorted(kept)]


def _is_of_use(encoding: Rle, max_fraction: float) -> bool:
    """Whether a mask is neither empty nor too large, without decoding it."""
    height, width = encoding["size"]
    return 0 < mask_area(encoding) <= max_fraction * height * width


def resize_encoded(encoding: Rle, size_hw: SizeHW, box_xyxy: BoxXyxy | None = None) -> BoolArray:
    """Resize a mask like an image, bilinearly with antialiasing, and threshold it at half coverage.

    Pillow resizes the bounding box of the mask in two passes, along rows and along columns. For the many small masks of
    a large image, this takes a third of the time of resizing whole masks. The intermediate result is rounded to 8 bits,
    which changes coverage by up to 1/255.

    Args:
        encoding: run-length encoding of a mask [H, W].
        size_hw: size h, w of the result.
        box_xyxy: crop of the mask to resize; by default the whole mask.

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
    if first == last:  # empty, or outside of the crop
        return resized
    columns = np.zeros((image_height, last - first), dtype=np.uint8)
    columns[y : y + len(rows)] = narrow[:, first:last]
    resized[:, first:last] = _resized(columns, (height, last - first), (0, top, last - first, bottom)) >= HALF_COVERED
    return resized


def _resize_image(image: PixelArray, view: _View, config: ItemConfig) -> PixelArray | FloatArray:
    resized: PixelArray | FloatArray
    if view.is_whole:
        resized = resize_pixels(image, config.preprocessing)
    elif config.resize == "square":  # in floating point, as in SAM 2
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
