"""Layers that the models share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation: TypeAlias = Literal["gelu", "relu"]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of [B, C, H, W]."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        return self.over_last_axis(channels_last).permute(0, 3, 1, 2)

    def over_last_axis(self, x: Tensor) -> Tensor:
        """The same for channels last, [..., C]."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class FeedForward(nn.Module):
    """The two linear layers of a transformer block."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.activation(self.lin1(x)))
        return out


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of channels last: [..., C] to [..., C']."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def drop_path_residual(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """x + scale * branch, for maps [B, H, W, C] and a number an image, [B]; None is one.

    With scales of 0, and of 1 / (share kept), this is stochastic depth (Huang et al., 2016), or drop path.
    """
    return x + branch if scale is None else x + scale.to(branch.dtype)[:, None, None, None] * branch


class MLP(nn.Module):
    """A stack of linear layers with an activation between them (heads, and all MLPs of SAM 2)."""

    def __init__(
        self, channels_in: int, hidden: int, channels_out: int, depth: int, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        widths = [channels_in, *[hidden] * (depth - 1), channels_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.hidden = hidden
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out
