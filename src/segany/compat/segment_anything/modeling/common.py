"""Layers that the modules of SAM share."""

from __future__ import annotations

from torch import Tensor, nn

from segany.nn import layers


class LayerNorm2d(layers.LayerNorm2d):
    """Layer normalization over the channels of [B, C, H, W]."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps)


class MLPBlock(nn.Module):
    """The MLP of a transformer block: two linear layers over [..., C]."""

    def __init__(self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embedding_dim, mlp_dim)
        self.lin2 = nn.Linear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        out: Tensor = self.lin2(self.act(self.lin1(x)))
        return out
