"""Attention over feature maps: with decomposed relative positions, and with a bias table in windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import SizeHW
from segany.nn.positions import relative_position_rows


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * D] to [B, heads, T, D]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, T, D] to [B, T, heads * D]."""
    return x.transpose(-2, -3).flatten(-2)


def relative_position_attention(
    query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, size_hw: SizeHW
) -> Tensor:
    """Attention over an H x W map with decomposed relative positions (MViTv2, section 4.1).

    The score of a query and a key gains query . table_h[rows apart] + query . table_w[columns apart].
    The query there is not scaled.

    Args:
        query, key, value: [B, heads, H * W, D].
        table_h, table_w: [2 * H - 1, D] and [2 * W - 1, D].
        size_hw: H, W.

    Returns:
        [B, heads, H * W, D].
    """
    bias_h, bias_w = relative_position_bias(query, table_h, table_w, size_hw)
    bias = (bias_h[..., :, None] + bias_w[..., None, :]).flatten(-2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def relative_position_bias(query: Tensor, table_h: Tensor, table_w: Tensor, size_hw: SizeHW) -> tuple[Tensor, Tensor]:
    """What the rows and the columns of keys add to the scores of each query, [B, heads, T, H] and [B, heads, T, W]."""
    height, width = size_hw
    by_position = query.unflatten(2, size_hw)
    bias_h = torch.einsum("bnhwc,hkc->bnhwk", by_position, relative_position_rows(table_h, height))
    bias_w = torch.einsum("bnhwc,wkc->bnhwk", by_position, relative_position_rows(table_w, width))
    return bias_h.flatten(2, 3), bias_w.flatten(2, 3)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Plain attention: [B, heads, T, D] to [B, heads, S, D] gives [B, heads, T, D']; D' is that of the values."""
    return F.scaled_dot_product_attention(query, key, value)
