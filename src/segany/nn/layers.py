"""Layers that several models share: layer norm over channels, MLPs, drop path."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.nn.replaced import is_plain

Activation: TypeAlias = Literal["gelu", "relu"]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class LayerNorm2d(nn.Module):
    """Layer normalization over the channels of [B, C, H, W]."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        return self.over_last_axis(channels_last).permute(0, 3, 1, 2)

    def over_last_axis(self, x: Tensor) -> Tensor:
        """Normalize [..., C] over the last axis."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class FeedForward(nn.Module):
    """The feed-forward network (MLP) of a transformer block: two linear layers over [..., C]."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.activation(self.lin1(x)))
        return out


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution to a channels-last map: [B, H, W, C] to [B, H, W, C']."""
    if not is_plain(conv):
        return by_channels_first(conv, x)
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def by_channels_first(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a layer for maps [B, C, H, W] on a channels-last map [B, H, W, C]: [B, H', W', C']."""
    out: Tensor = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return out


def drop_path_residual(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """Add a residual branch with drop path (stochastic depth; Huang et al., 2016): x + scale * branch.

    Args:
        x, branch: [B, H, W, C].
        scale: [B], 0 to drop the branch of an image and 1 / (1 - drop rate) to keep it; None for no drop path.
    """
    return x + branch if scale is None else x + scale.to(branch.dtype)[:, None, None, None] * branch


class MLP(nn.Module):
    """A stack of linear layers with an activation between them: the heads, and all MLPs of SAM 2."""

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
