"""Layers that the models share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, fast_cpu, linear

Activation: TypeAlias = Literal["gelu", "relu"]

_MIN_ROWS = 1024
"""Fewest rows of a piece: each piece has the weights put in the kernel's order anew."""

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Linear gives it)
        return linear(input, self.weight, self.bias)


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
        self.lin1 = Linear(width, hidden)
        self.lin2 = Linear(hidden, width)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(lambda rows: self.lin2(self.activation(self.lin1(rows))), x, self.lin1.out_features)


def by_rows(layer: Callable[[Tensor], Tensor], x: Tensor, hidden: int) -> Tensor:
    """Apply a layer that treats each row of [..., C] alone, in pieces whose intermediates fit the cache.

    Args:
        layer: maps [rows, C] to [rows, C'].
        x: [..., C].
        hidden: channels of the layer's widest intermediate.
    """
    rows = x.numel() // x.shape[-1]
    limit = max(_MIN_ROWS, CACHE_BUDGET // hidden)
    if rows <= limit or not fast_cpu(x):
        return layer(x)
    pieces = x.reshape(rows, x.shape[-1]).chunk(-(-rows // limit))
    out = torch.cat([layer(piece) for piece in pieces])
    return out.reshape(*x.shape[:-1], out.shape[-1])


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
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))
        self.hidden = hidden
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(self._forward, x, self.hidden)

    def _forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        return last(x)
