"""Loading one item: which image it is of, and what takes the place of one that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, PixelArray
from segany.core.errors import DataError, ImageError, VideoError
from segany.data.folders import printable
from segany.data.item import Dataset, TrainingItem
from segany.data.transforms import ItemConfig, make_item

MAX_TRIES = 100
"""Other images that may take the place of one that cannot be used."""

_REPLACEMENT = 1
"""Tells the random stream of replacements from the seed of the item."""


@dataclass(frozen=True)
class Slot:
    """A place in the order of an epoch. What fills it depends on nothing else, so that any process may do it.

    Attributes:
        seed, epoch, place: which one it is; together the source of all that is random.
        index: of the image whose place it is.
    """

    seed: int
    epoch: int
    place: int
    index: int

    @property
    def item_seed(self) -> int:
        """Of the item, below 2**63."""
        state = np.random.SeedSequence((self.seed, self.epoch, self.place)).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(1))

    def replacements(self) -> np.random.Generator:
        """What draws the images that take its place where its own cannot be used."""
        return np.random.default_rng([self.seed, self.epoch, self.place, _REPLACEMENT])


@dataclass(frozen=True, eq=False)
class Loaded:
    """An item, and what was met on the way to it.

    Attributes:
        item: of the image of the slot, or of one in its place.
        index: of the image.
        damaged: numbers of images that could not be read, each with the reason.
        without_masks: numbers of images of which no mask was left.
    """

    item: TrainingItem
    index: int
    damaged: tuple[tuple[int, str], ...]
    without_masks: tuple[int, ...]


def load_slot(dataset: Dataset, config: ItemConfig, slot: Slot) -> Loaded:
    """Fill a slot: with its image, or where that is damaged or has no masks with one drawn at random.

    Raises:
        DataError: none of `MAX_TRIES` others could be used either.
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
    """An item on its way between processes: eight pixels of a mask a byte."""

    name: str
    image: PixelArray | FloatArray
    bits: PixelArray
    masks_shape: tuple[int, ...]
    boxes_xyxy: FloatArray
    seed: int

    @classmethod
    def of(cls, item: TrainingItem) -> PackedItem:
        """Pack an item."""
        return cls(item.name, item.image, np.packbits(item.masks), item.masks.shape, item.boxes_xyxy, item.seed)

    def unpacked(self) -> TrainingItem:
        """The item."""
        count = int(np.prod(self.masks_shape))
        masks: BoolArray = np.unpackbits(self.bits, count=count).view(np.bool_).reshape(self.masks_shape)
        return TrainingItem(self.name, self.image, masks, self.boxes_xyxy, self.seed)
