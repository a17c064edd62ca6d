"""Subsets of datasets, and the split into a training and a validation set."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from segany.core.errors import DataError, check
from segany.data.item import AnnotatedImage, Dataset, omitted_by


class Subset:
    """A `Dataset` of some images of another dataset, in its order."""

    def __init__(self, dataset: Dataset, indices: Iterable[int]) -> None:
        """Take the images with these indices."""
        self.dataset = dataset
        self.indices = tuple(sorted(set(indices)))
        names = dataset.names
        self.names = tuple(names[index] for index in self.indices)

    @property
    def omitted(self) -> Mapping[str, int]:
        """What the whole dataset leaves out."""
        return omitted_by(self.dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> AnnotatedImage:
        """See `Dataset`."""
        return self.dataset.read(self.indices[index])


def only(dataset: Dataset, names: Iterable[str]) -> Subset:
    """The subset of the images with some names.

    Raises:
        DataError: a name does not exist, or no name is given.
    """
    index_of = {name: index for index, name in enumerate(dataset.names)}
    wanted = list(names)
    missing = [name for name in wanted if name not in index_of]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DataError(
            f"The dataset has no image {missing[0]!r}{others}. Its names are like {dataset.names[0]!r}: paths "
            "without suffix."
        )
    if not wanted:
        raise DataError("No names are given, so that the subset would be empty.")
    return Subset(dataset, (index_of[name] for name in wanted))


def split_by_name(
    dataset: Dataset, held_out: float = 0.1, seed: int = 0, *, by_folder: bool = False
) -> tuple[Subset, Subset]:
    """Split a dataset into a training set and a held-out validation set.

    The split depends on a hash of the seed and the name of each image. It is therefore the same on every machine and
    for every order of the files, and few images change sides when images are added or removed.

    Args:
        dataset: the dataset.
        held_out: size of the validation set: below 1 a share of the images, rounded; from 1 their number.
        seed: random seed of the split.
        by_folder: keep images of the same folder, such as the frames of a video, in the same set. `held_out` then
            counts folders.

    Returns:
        The training set and the validation set.

    Raises:
        ConfigError: `held_out` is neither a share nor a whole number from 1.
        DataError: the training set would be empty.
    """
    is_share = 0 < held_out < 1
    check(is_share or (1 <= held_out < math.inf and held_out == int(held_out)),
          f"held_out must be a share between 0 and 1 or a whole number, got {held_out}.")  # fmt: skip
    groups = [name.rpartition("/")[0] if by_folder else name for name in dataset.names]
    ranked = sorted(set(groups), key=lambda group: _digest(seed, group))
    count = max(1, round(held_out * len(ranked))) if is_share else int(held_out)
    if count >= len(ranked):
        what = "folders" if by_folder else "images"
        raise DataError(f"{count} of {len(ranked)} {what} cannot be held out: none would be left to train on.")
    chosen = set(ranked[:count])
    sides: tuple[list[int], list[int]] = [], []
    for index, group in enumerate(groups):
        sides[group in chosen].append(index)
    return Subset(dataset, sides[0]), Subset(dataset, sides[1])


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
