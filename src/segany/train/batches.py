"""Where the loop takes its items from, as `segany.data.loader.Loader` gives them; and what a task may offer besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from segany.core.arrays import PixelArray
from segany.data.item import TrainingItem
from segany.data.loader import LoadReport


class Batches(Protocol):
    """Items in batches, epoch after epoch.

    In a training of several processes each has batches of its own: its share, maybe an empty one, of what a
    step takes. All have as many batches, and each is at the same one.
    """

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[Sequence[TrainingItem]]:
        """The batches of this epoch that have not been given out; after the last one the next epoch begins."""
        ...

    def state(self) -> dict[str, object]:
        """Where to go on: after the last batch given out. JSON values."""
        ...

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on where the state was taken.

        Raises:
            SeganyError: the state is that of other data.
        """
        ...

    @property
    def report(self) -> LoadReport:
        """What this process has read and could not use since it began."""
        ...


@runtime_checkable
class ShowsSamples(Protocol):
    """A task with pictures of what has been learned so far."""

    def samples(self) -> Sequence[PixelArray]:
        """Pictures of predictions on held-out data, uint8 [H, W, 3] of any sizes. Called after `validate`."""
        ...


@runtime_checkable
class SavesAnotherModule(Protocol):
    """A task that trains more, or something else, than what is of use afterwards."""

    def saved_module(self) -> nn.Module:
        """What `best.safetensors` and `last.safetensors` hold: the model with its adapters merged, an encoder."""
        ...


@runtime_checkable
class HasBlocks(Protocol):
    """A task that says which modules are its blocks, where the modules in module lists are not what is meant."""

    def blocks(self) -> Sequence[nn.Module]:
        """What is compiled, and of which activations are computed anew: modules that are called by themselves."""
        ...
