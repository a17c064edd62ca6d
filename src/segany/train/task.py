"""The protocol of a training task: a module, its losses on items, its parameter groups and its validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from segany.data.item import TrainingItem


@dataclass(frozen=True, eq=False)
class ItemLoss:
    """The loss of one item.

    Attributes:
        total: the loss, a scalar tensor with gradients. The loss of a batch is the mean over its items, so that it
            does not depend on the number of processes or of micro-batches.
        parts: parts of the loss, for the log.
    """

    total: Tensor
    parts: Mapping[str, float]


class Task(Protocol):
    """A training task. The training loop depends on nothing else of it.

    Attributes:
        module: the module with all trained parameters, and all other weights that a checkpoint must hold.
    """

    @property
    def module(self) -> nn.Module: ...

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """The losses of some items, in their order. All random numbers are derived from the seeds of the items."""
        ...

    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameter groups of the trained parameters for the optimizer, each with `lr_scale` and `weight_decay`."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores on the validation set. The first selects the best checkpoint; higher is better."""
        ...
