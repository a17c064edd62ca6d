"""Forms of layers that all models share."""

from __future__ import annotations

from torch import Tensor, nn

from segany.kernels.compute import fast_cpu, linear
from segany.kernels.strips import by_rows
from segany.nn.layers import MLP, FeedForward


class FastLinear(nn.Linear):
    """A linear layer by the faster of two kernels."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Linear gives it)
        return linear(input, self.weight, self.bias)


class FastFeedForward(FeedForward):
    """By rows."""

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(super().forward, x, self.lin1.out_features) if fast_cpu(x) else super().forward(x)


class FastMLP(MLP):
    """By rows."""

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(super().forward, x, self.hidden) if fast_cpu(x) else super().forward(x)


FORMS: tuple[type[nn.Module], ...] = (FastLinear, FastFeedForward, FastMLP)
