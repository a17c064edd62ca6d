"""Parts of datasets, chosen by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from segany.core.errors import DataError, check
from segany.data.item import AnnotatedImage, Dataset, omitted_by


class Subset:
    """Some images of a `Dataset`, in its order."""

    def __init__(self, dataset: Dataset, indices: Iterable[int]) -> None:
        """Take the images of these numbers."""
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
    """The images of some names.

    Raises:
        DataError: there is none of a name, or no name is given.
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
    """Split a dataset in two: those to train on, and those held out.

    A hash of the seed and of its name decides where an image goes, so that the split is the same on every
    machine, whatever the order of files, and few images change sides when others come or go.

    Args:
        dataset: to split.
        held_out: how many images to hold out: below 1 a share of all, rounded; from 1 a whole number.
        seed: another gives another split.
        by_folder: keep images of one folder on one side, such as the frames of a video; then `held_out`
            counts folders.

    Raises:
        ConfigError: `held_out` is no share and no whole number from 1.
        DataError: nothing would be left on one side.
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
