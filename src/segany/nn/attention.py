"""Scaled dot-product attention, plain and with decomposed relative position embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import SizeHW
from segany.nn.positions import relative_position_rows


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape [B, T, heads * D] to [B, heads, T, D]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Reshape [B, heads, T, D] to [B, T, heads * D]."""
    return x.transpose(-2, -3).flatten(-2)


def relative_position_attention(
    query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, size_hw: SizeHW
) -> Tensor:
    """Attention over an H x W map with decomposed relative position embeddings (MViTv2, section 4.1).

    The bias query . table_h[row distance] + query . table_w[column distance] is added to the score of a query and a
    key. The query is not scaled for the bias.

    Args:
        query, key, value: [B, heads, H * W, D].
        table_h, table_w: relative position embeddings, [2 * H - 1, D] and [2 * W - 1, D].
        size_hw: H, W.

    Returns:
        [B, heads, H * W, D].
    """
    bias_h, bias_w = relative_position_bias(query, table_h, table_w, size_hw)
    bias = (bias_h[..., :, None] + bias_w[..., None, :]).flatten(-2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def relative_position_bias(query: Tensor, table_h: Tensor, table_w: Tensor, size_hw: SizeHW) -> tuple[Tensor, Tensor]:
    """Compute the relative position biases for the rows and columns: [B, heads, T, H] and [B, heads, T, W].

    Arguments are those of `relative_position_attention`, with T = H * W.
    """
    height, width = size_hw
    by_position = query.unflatten(2, size_hw)
    bias_h = torch.einsum("bnhwc,hkc->bnhwk", by_position, relative_position_rows(table_h, height))
    bias_w = torch.einsum("bnhwc,wkc->bnhwk", by_position, relative_position_rows(table_w, width))
    return bias_h.flatten(2, 3), bias_w.flatten(2, 3)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention without a bias.

    Args:
        query: [B, heads, T, D].
        key, value: [B, heads, S, D] and [B, heads, S, D'].

    Returns:
        [B, heads, T, D'].
    """
    return F.scaled_dot_product_attention(query, key, value)
