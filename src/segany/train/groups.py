"""Parameters for the optimizer: which decay, and which do not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Groups of those parameters that are trained, as `Task.parameter_groups` gives them.

    Vectors (biases, and the scales of norms) do not decay.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    kinds = (
        ([parameter for parameter in trained if parameter.ndim > 1], weight_decay),
        ([parameter for parameter in trained if parameter.ndim <= 1], 0.0),
    )
    return [{"params": some, "lr_scale": 1.0, "weight_decay": decay} for some, decay in kinds if some]
