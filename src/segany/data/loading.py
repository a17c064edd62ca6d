"""Loading of one training item, with a replacement for an image that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.errors import DataError, ImageError, VideoError
from segany.data.folders import printable
from segany.data.item import Dataset, TrainingItem
from segany.data.transforms import ItemConfig, make_item

MAX_TRIES = 100
"""Largest number of replacements that are tried for an image that cannot be used."""

_REPLACEMENT = 1
"""Stream of random numbers for replacements, to keep it independent of the seed of the item."""


@dataclass(frozen=True)
class Slot:
    """A position in the order of an epoch. It determines its item, so that any process can load it.

    Attributes:
        seed, epoch, place: seed of the loader, epoch and position, from which all random numbers are derived.
        index: index of the image at this position.
    """

    seed: int
    epoch: int
    place: int
    index: int

    @property
    def item_seed(self) -> int:
        """The seed of the item, below 2**63."""
        state = np.random.SeedSequence((self.seed, self.epoch, self.place)).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(1))

    def replacements(self) -> np.random.Generator:
        """The generator of random replacements for the image."""
        return np.random.default_rng([self.seed, self.epoch, self.place, _REPLACEMENT])


@dataclass(frozen=True, eq=False)
class Loaded:
    """An item, and the images that could not be used for it.

    Attributes:
        item: the item of the image of the slot, or of its replacement.
        index: index of the image that was used.
        damaged: indices of images that could not be read, each with the reason.
        without_masks: indices of images without a usable mask.
    """

    item: TrainingItem
    index: int
    damaged: tuple[tuple[int, str], ...]
    without_masks: tuple[int, ...]


def load_slot(dataset: Dataset, config: ItemConfig, slot: Slot) -> Loaded:
    """Load the item of a slot. An image that is damaged or has no usable mask is replaced by a random one.

    Raises:
        DataError: none of `MAX_TRIES` replacements could be used.
    """
    damaged: dict[int, str] = {}
    without_masks: dict[int, None] = {}
    draw = slot.replacements()
    index = slot.index
    for _ in range(MAX_TRIES + 1):
        if index not in damaged and index not in without_masks:
            try:
                item = make_item(dataset.read(index), config, slot.item_seed)
            except (DataError, ImageError, VideoError) as error:
                damaged[index] = printable(str(error))
            else:
                if item is not None:
                    return Loaded(item, index, tuple(damaged.items()), tuple(without_masks))
                without_masks[index] = None
        index = int(draw.integers(len(dataset)))
    reason = next(iter(damaged.values()), f"no mask was left of {dataset.names[slot.index]}.")
    raise DataError(
        f"{len(damaged) + len(without_masks)} images were tried, and none can be used: {len(damaged)} are damaged, "
        f"and of {len(without_masks)} no mask was left. The first: {reason}"
    )


@dataclass(frozen=True, eq=False)
class PackedItem:
    """An item in the form in which worker processes send it, with eight mask pixels in a byte."""

    name: str
    image: PixelArray | FloatArray
    bits: PixelArray
    masks_shape: tuple[int, ...]
    boxes_xyxy: FloatArray
    seed: int

    @classmethod
    def of(cls, item: TrainingItem) -> PackedItem:
        """Pack the masks of an item."""
        return cls(item.name, item.image, np.packbits(item.masks), item.masks.shape, item.boxes_xyxy, item.seed)

    def unpacked(self) -> TrainingItem:
        """The item with unpacked masks."""
        count = int(np.prod(self.masks_shape))
        masks: BoolArray = np.unpackbits(self.bits, count=count).view(np.bool_).reshape(self.masks_shape)
        return TrainingItem(self.name, self.image, masks, self.boxes_xyxy, self.seed)
