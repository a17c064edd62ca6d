"""Window partition and its inverse, for attention within windows."""

from __future__ import annotations

import torch
from torch import Tensor

from segany.core.arrays import SizeHW


def partition(x: Tensor, size: int, fill: Tensor | None = None) -> Tensor:
    """Partition [B, H, W, C] into windows [B * windows, size * size, C] in row-major order.

    If `size` does not divide H or W, the bottom and right are padded with `fill` [C], by default zeros.
    """
    batch, height, width, channels = x.shape
    rows, columns = _windows(height, size), _windows(width, size)
    padded_hw = (rows * size, columns * size)
    if padded_hw != (height, width):
        border = x.new_zeros(channels) if fill is None else fill
        right = border.expand(batch, height, padded_hw[1] - width, -1)
        bottom = border.expand(batch, padded_hw[0] - height, padded_hw[1], -1)
        x = torch.cat([torch.cat([x, right], dim=2), bottom], dim=1)
    x = x.reshape(batch, rows, size, columns, size, channels)
    return x.transpose(2, 3).reshape(batch * rows * columns, size * size, channels)


def unpartition(windows: Tensor, size: int, size_hw: SizeHW) -> Tensor:
    """Invert `partition` and remove the padding: windows [B * windows, size * size, C] to [B, H, W, C]."""
    height, width = size_hw
    rows, columns = _windows(height, size), _windows(width, size)
    channels = windows.shape[-1]
    x = windows.reshape(-1, rows, columns, size, size, channels).transpose(2, 3)
    x = x.reshape(-1, rows * size, columns * size, channels)
    return torch.narrow(torch.narrow(x, 1, 0, height), 2, 0, width)


def _windows(side: int, size: int) -> int:
    """Return the number of windows that cover a side, rounded up.

    Without negative numbers, whose division a traced graph would round toward zero.
    """
    return (side + size - 1) // size
