"""What the loop trains: a module, and the loss it has on items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from segany.data.item import TrainingItem


@dataclass(frozen=True, eq=False)
class ItemLoss:
    """What one item costs.

    Attributes:
        total: a number with gradients. The loss of a batch is the mean of its items', so that it does not
            depend on how the batch is spread over processes and steps of accumulation.
        parts: numbers for the log.
    """

    total: Tensor
    parts: Mapping[str, float]


class Task(Protocol):
    """What is learned. The loop knows nothing else about it.

    Attributes:
        module: everything that is trained, and everything else that a checkpoint must hold.
    """

    @property
    def module(self) -> nn.Module: ...

    def losses(self, items: Sequence[TrainingItem]) -> list[ItemLoss]:
        """Run the model on some items, together where that is faster. What is random comes from their seeds alone."""
        ...

    def parameter_groups(self) -> list[dict[str, object]]:
        """Of the parameters that are trained: groups for the optimizer, each with its `lr_scale` and `weight_decay`."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores on held-out data, of which the first says which checkpoint is the best: higher is better."""
        ...
