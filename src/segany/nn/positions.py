"""Position encodings: random Fourier features and decomposed relative positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from segany.types import SizeHW


class RandomFourierPositions(nn.Module):
    """Positions as sines and cosines of random projections (Tancik et al., Fourier Features, 2020).

    The checkpoint's matrix has two rows, x then y, and half as many columns as the encoding has channels.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.empty(2, channels // 2).normal_())

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encode xy in 0..1, [..., 2], as [..., C]."""
        matrix = self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * ((2 * coordinates - 1).to(matrix.dtype) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, size_hw: SizeHW) -> Tensor:
        """Encode the centres of a grid of positions, [H, W, C]."""
        matrix = self.positional_encoding_gaussian_matrix
        y, x = ((torch.arange(side, device=matrix.device, dtype=torch.float32) + 0.5) / side for side in size_hw)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return self(torch.stack([grid_x, grid_y], dim=-1))


def relative_position_rows(table: Tensor, size: int) -> Tensor:
    """Rows of a relative-position table for every query and key along one axis.

    Args:
        table: [2 * size - 1, C], from the farthest key after the query to the farthest before it.
        size: positions along the axis.

    Returns:
        [size, size, C], query by key.
    """
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index[None, :] + (size - 1)]
