"""Position encodings: random Fourier features, decomposed relative positions, sines, and rotations."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segany.core.arrays import SizeHW

_LONGEST = 10000.0
"""Ratio of the longest to the shortest wavelength of sines and rotations."""


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
        centered = (2 * coordinates - 1).to(matrix.dtype)
        if torch.is_autocast_enabled(matrix.device.type):  # which would round coordinates to a few hundred places
            angles = 2 * math.pi * (centered[..., :1] * matrix[0] + centered[..., 1:] * matrix[1])
        else:
            angles = 2 * math.pi * (centered @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, size_hw: SizeHW) -> Tensor:
        """Encode the centers of a grid of positions, [H, W, C]."""
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


def sine_grid(size_hw: SizeHW, channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of a grid's rows and columns (Vaswani et al., 2017), [H * W, C].

    The first half of the channels is for the row, the second for the column; in each, sines and cosines
    alternate. Positions run from above 0 to 2 pi, so that the encoding does not depend on the size.

    Args:
        size_hw: H, W.
        channels: C, a multiple of 4.
        like: gives the device and the dtype.
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
    """Sines and then cosines of numbers [N], [N, C]."""
    angles = times[:, None] / _wavelengths(channels // 2, times)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _wavelengths(channels: int, like: Tensor) -> Tensor:
    pairs = torch.arange(channels, device=like.device, dtype=torch.float32) // 2
    return _LONGEST ** (2 * pairs / channels)


class Rotations(NamedTuple):
    """Angles of a grid's positions as cosines and sines, [T, C / 2] each."""

    cosines: Tensor
    sines: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate the channel pairs (i, i + C / 2) of [..., T, C]."""
        first, second = x.chunk(2, dim=-1)
        turned = torch.addcmul(first * self.cosines, second, self.sines, value=-1)
        return torch.cat([turned, torch.addcmul(first * self.sines, second, self.cosines)], dim=-1)


def axial_rotations(size_hw: SizeHW, channels: int, like: Tensor) -> Rotations:
    """Rotary positions of a grid (Heo et al., Rotary Position Embedding for Vision Transformer, 2024).

    The first half of the channel pairs turns with the column, the second with the row. Channels are in
    pairs of halves, not of neighbors; `halves_first` brings weights trained for neighbors to that order.
    """
    height, width = size_hw
    frequencies = _LONGEST ** -(torch.arange(0, channels, 4, device=like.device, dtype=torch.float32) / channels)
    rows, columns = (torch.arange(side, device=like.device)[:, None] * frequencies for side in size_hw)

    def over_grid(of_rows: Tensor, of_columns: Tensor) -> Tensor:
        parts = (of_columns[None].expand(height, -1, -1), of_rows[:, None].expand(-1, width, -1))
        return torch.cat(parts, dim=-1).flatten(0, 1).to(like.dtype)

    return Rotations(over_grid(rows.cos(), columns.cos()), over_grid(rows.sin(), columns.sin()))


def halves_first(weight: Tensor) -> Tensor:
    """Rows 0, 2, 4, ... and then 1, 3, 5, ... of a projection, so that pairs of neighbors become pairs of halves.

    Done to queries and keys alike it changes no product of theirs.
    """
    return torch.cat([weight[::2], weight[1::2]])
