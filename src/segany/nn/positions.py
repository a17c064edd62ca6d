"""Position encodings: random Fourier features, relative positions, sinusoidal encodings, and RoPE."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segany.core.arrays import SizeHW

_LONGEST = 10000.0
"""Ratio of the longest to the shortest wavelength of sinusoidal encodings and RoPE (`temperature`, `theta`)."""


class RandomFourierPositions(nn.Module):
    """Position encoding with random Fourier features (Tancik et al., 2020): sines and cosines of random projections.

    The matrix is [2, C / 2], with x in the first row and y in the second.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.empty(2, channels // 2).normal_())

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encode coordinates x, y in 0..1, [..., 2], to [..., C]."""
        matrix = self.positional_encoding_gaussian_matrix
        centered = (2 * coordinates - 1).to(matrix.dtype)
        if torch.is_autocast_enabled(matrix.device.type):  # a matmul would round coordinates to low precision
            angles = 2 * math.pi * (centered[..., :1] * matrix[0] + centered[..., 1:] * matrix[1])
        else:
            angles = 2 * math.pi * (centered @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, size_hw: SizeHW) -> Tensor:
        """Encode the centers of the positions of an H x W grid: [H, W, C]."""
        matrix = self.positional_encoding_gaussian_matrix
        y, x = ((torch.arange(side, device=matrix.device, dtype=torch.float32) + 0.5) / side for side in size_hw)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return self(torch.stack([grid_x, grid_y], dim=-1))


def relative_position_rows(table: Tensor, size: int) -> Tensor:
    """Look up the relative position embedding of every pair of query and key along one axis.

    Args:
        table: [2 * size - 1, C], indexed by query position - key position + size - 1.
        size: positions along the axis.

    Returns:
        [size, size, C], query by key.
    """
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index[None, :] + (size - 1)]


def sine_grid(size_hw: SizeHW, channels: int, like: Tensor) -> Tensor:
    """Compute the 2D sinusoidal position encoding of a grid (Vaswani et al., 2017): [H * W, C].

    The first half of the channels encodes the row, the second half the column; in each, sines and cosines alternate.
    Positions are normalized to 2 pi, so that the encoding does not depend on the size.

    Args:
        size_hw: H, W.
        channels: C, a multiple of 4.
        like: tensor that determines the device and the dtype.
    """
    height, width = size_hw
    rows, columns = (_alternating(side, channels // 2, like) for side in size_hw)
    grid = torch.cat(
        [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)],
        dim=-1,
    )
    return grid.flatten(0, 1).to(like.dtype)


def _alternating(side: int, channels: int, like: Tensor) -> Tensor:
    positions = torch.arange(1, side + 1, device=like.device, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
    angles = positions[:, None] / _wavelengths(channels, like)
    return torch.stack([angles[:, ::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)


def sine_times(times: Tensor, channels: int) -> Tensor:
    """Compute the 1D sinusoidal encoding of times [N]: [N, C], sines in the first half and cosines in the second."""
    angles = times[:, None] / _wavelengths(channels // 2, times)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _wavelengths(channels: int, like: Tensor) -> Tensor:
    pairs = torch.arange(channels, device=like.device, dtype=torch.float32) // 2
    return _LONGEST ** (2 * pairs / channels)


class Rotations(NamedTuple):
    """RoPE of the T positions of a grid: cosines and sines of the rotation angles, [T, C / 2] each."""

    cosines: Tensor
    sines: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate the channel pairs (i, i + C / 2) of [..., T, C]."""
        first, second = x.chunk(2, dim=-1)
        turned = torch.addcmul(first * self.cosines, second, self.sines, value=-1)
        return torch.cat([turned, torch.addcmul(first * self.sines, second, self.cosines)], dim=-1)


def axial_rotations(size_hw: SizeHW, channels: int, like: Tensor) -> Rotations:
    """Compute the axial RoPE of a grid (Heo et al., Rotary Position Embedding for Vision Transformer, 2024).

    The first half of the channel pairs is rotated by the column, the second half by the row. Channel i is paired with
    i + C / 2, not with its neighbor; `halves_first` permutes weights that were trained with pairs of neighbors.
    """
    height, width = size_hw
    frequencies = _LONGEST ** -(torch.arange(0, channels, 4, device=like.device, dtype=torch.float32) / channels)
    rows, columns = (torch.arange(side, device=like.device)[:, None] * frequencies for side in size_hw)

    def over_grid(of_rows: Tensor, of_columns: Tensor) -> Tensor:
        parts = (of_columns[None].expand(height, -1, -1), of_rows[:, None].expand(-1, width, -1))
        return torch.cat(parts, dim=-1).flatten(0, 1).to(like.dtype)

    return Rotations(over_grid(rows.cos(), columns.cos()), over_grid(rows.sin(), columns.sin()))


def halves_first(weight: Tensor) -> Tensor:
    """Permute the rows of a projection to 0, 2, 4, ..., 1, 3, 5, ...: pairs of neighbors become pairs of halves.

    The scores do not change if queries and keys are permuted alike.
    """
    return torch.cat([weight[::2], weight[1::2]])
