"""Protocols of the training loop: its source of batches (`segany.data.loader.Loader`), and optional parts of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from segany.core.arrays import PixelArray
from segany.data.item import TrainingItem
from segany.data.loader import LoadReport


class Batches(Protocol):
    """A data loader that yields batches of items, one epoch for each iteration over it.

    In distributed training, every process iterates over its own share of each batch, which may be empty. All
    processes have the same number of batches and are always at the same batch.
    """

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        ...

    def __iter__(self) -> Iterator[Sequence[TrainingItem]]:
        """Yield the batches that are left of the current epoch. The next iteration starts the next epoch."""
        ...

    def state(self) -> dict[str, object]:
        """The position after the last batch that was yielded, as JSON values."""
        ...

    def restore(self, state: Mapping[str, object]) -> None:
        """Continue from the position of a state.

        Raises:
            SeganyError: the state belongs to other data.
        """
        ...

    @property
    def report(self) -> LoadReport:
        """Counts of the items that this process has loaded, and the images that it had to skip."""
        ...


@runtime_checkable
class ShowsSamples(Protocol):
    """A task that draws predictions of the current model."""

    def samples(self) -> Sequence[PixelArray]:
        """Pictures of predictions on the validation set, uint8 [H, W, 3] of any sizes. Called after `validate`."""
        ...


@runtime_checkable
class SavesAnotherModule(Protocol):
    """A task whose `module` is not the model to save for inference."""

    def saved_module(self) -> nn.Module:
        """The module that `best.safetensors` and `last.safetensors` hold, such as the model with merged adapters."""
        ...


@runtime_checkable
class HasBlocks(Protocol):
    """A task that names its blocks, where they are not the modules in the module lists of the model."""

    def blocks(self) -> Sequence[nn.Module]:
        """The blocks for compilation and activation checkpointing: modules whose `forward` the task calls."""
        ...
