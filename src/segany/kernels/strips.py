"""Maps a strip of rows at a time, and rows some at a time, so that wide intermediates stay in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segany.kernels.compute import CACHE_BUDGET

_MIN_ROWS = 1024
"""Fewest rows of a piece: each piece has the weights put in the kernel's order anew."""


def rows_of(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first..last of [B, H, W, C], with zeros for those that lie beyond the map."""
    height = x.shape[1]
    inside = x[:, max(first, 0) : min(last, height)]
    above, below = max(-first, 0), max(last - height, 0)
    return F.pad(inside, (0, 0, 0, 0, above, below)) if above or below else inside


def convolve_in_strips(
    produce: Callable[[int, int], Tensor],
    consume: Callable[[Tensor, int, int], Tensor],
    wide_shape: tuple[int, int, int],
    stride: int = 1,
) -> Tensor:
    """A wide map that a 3 x 3 convolution consumes, made and consumed a strip of rows at a time.

    Args:
        produce: (first, last) -> those rows of the wide map, [B, last - first, W, C].
        consume: (rows, top, bottom) -> rows top..bottom of the output; starts with the convolution,
            which must not pad rows: `rows` holds one more on either side, zeros beyond the map.
        wide_shape: H, W, C of the wide map.
        stride: of the convolution.
    """
    height, width, channels = wide_shape
    out_height = -(-height // stride)
    strip = max(1, CACHE_BUDGET // (width * channels * stride))
    out = []
    for top in range(0, out_height, strip):
        bottom = min(top + strip, out_height)
        first, last = top * stride - 1, (bottom - 1) * stride + 2
        wide = produce(max(first, 0), min(last, height))
        if first < 0 or last > height:
            wide = F.pad(wide, (0, 0, 0, 0, max(-first, 0), max(last - height, 0)))
        out.append(consume(wide, top, bottom))
    return out[0] if len(out) == 1 else torch.cat(out, dim=1)


def by_rows(layer: Callable[[Tensor], Tensor], x: Tensor, hidden: int) -> Tensor:
    """Apply a layer that treats each row of [..., C] alone, in pieces whose intermediates fit the cache.

    Args:
        layer: maps [rows, C] to [rows, C'].
        x: [..., C].
        hidden: channels of the layer's widest intermediate.
    """
    rows = x.numel() // x.shape[-1]
    limit = max(_MIN_ROWS, CACHE_BUDGET // hidden)
    if rows <= limit:
        return layer(x)
    pieces = x.reshape(rows, x.shape[-1]).chunk(-(-rows // limit))
    out = torch.cat([layer(piece) for piece in pieces])
    return out.reshape(*x.shape[:-1], out.shape[-1])
