"""Attention with scores that stay in the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from segany.core.arrays import SizeHW
from segany.kernels.compute import CACHE_BUDGET, fast_cpu, linear
from segany.nn import attention
from segany.nn.attention import relative_position_bias

_KEYS_AT_ONCE = 256
"""Keys whose scores are held together: as weights of a product they are put in the kernel's order anew."""


def relative_position_attention(
    query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, size_hw: SizeHW
) -> Tensor:
    """`nn.attention.relative_position_attention`."""
    if not fast_cpu(query):
        return attention.relative_position_attention(query, key, value, table_h, table_w, size_hw)
    biases = relative_position_bias(query, table_h, table_w, size_hw)
    pieces = (x.flatten(0, 1) for x in (query, key, value, *biases))
    return torch.unflatten(_attend_in_pieces(*pieces), 0, query.shape[:2])


def _attend_in_pieces(query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
    """Scores that never leave the cache.

    Args:
        query, key, value: [N, T, D], N = B * heads.
        bias_h, bias_w: [N, T, H] and [N, T, W].
    """
    count, tokens, _ = query.shape
    query = query * query.shape[-1] ** -0.5
    out = torch.empty_like(value)
    together = max(1, CACHE_BUDGET // tokens**2)
    rows = max(1, min(tokens, CACHE_BUDGET // tokens))
    for n in range(0, count, together):
        batch = slice(n, n + together)
        key_t = key[batch].transpose(1, 2)
        value_t = value[n].t().contiguous() if together == 1 else value
        for row in range(0, tokens, rows):
            piece = slice(row, row + rows)
            if together == 1:  # one large product: `linear` has the faster kernel
                scores = linear(query[n, piece], key[n])[None]
            else:
                scores = query[batch, piece] @ key_t
            grid = scores.unflatten(-1, (bias_h.shape[-1], bias_w.shape[-1]))
            grid += bias_h[batch, piece, :, None]
            grid += bias_w[batch, piece, None, :]
            torch.softmax(scores, -1, out=scores)
            out[batch, piece] = linear(scores[0], value_t)[None] if together == 1 else scores @ value[batch]
    return out


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`nn.attention.attend` with scores that never leave the cache."""
    if not fast_cpu(query):
        return attention.attend(query, key, value)
    heads = query.shape[:2]
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    count, tokens, keys = len(query), query.shape[1], key.shape[1]
    query = query * query.shape[-1] ** -0.5
    together = CACHE_BUDGET // (tokens * keys)
    out = query.new_empty(count, tokens, value.shape[-1])
    if together > 1:
        for n in range(0, count, together):
            batch = slice(n, n + together)
            weights = torch.softmax(query[batch] @ key[batch].transpose(1, 2), -1)
            torch.matmul(weights, value[batch], out=out[batch])
        return torch.unflatten(out, 0, heads)
    for n in range(count):
        _attend_by_keys(query[n], key[n], value[n], out[n])
    return torch.unflatten(out, 0, heads)


def _attend_by_keys(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """One head's attention with the scores of some keys at a time, which never leave the cache.

    Softmax goes on from one piece to the next (Dao et al., FlashAttention, 2022): what was summed so far
    is scaled down wherever a higher score is met.

    Args:
        query: [T, D], scaled.
        key, value: [S, D] and [S, D'].
        out: [T, D'], written to.
    """
    together = max(1, CACHE_BUDGET // _KEYS_AT_ONCE)
    for rows, target in zip(query.split(together), out.split(together), strict=True):
        highest = rows.new_full((len(rows), 1), -torch.inf)
        total = torch.zeros_like(highest)
        target.zero_()
        for keys, values in zip(key.split(_KEYS_AT_ONCE), value.split(_KEYS_AT_ONCE), strict=True):
            scores = linear(rows, keys)
            before, highest = highest, torch.maximum(highest, scores.amax(dim=1, keepdim=True))
            scores.sub_(highest).exp_()
            shrink = before.sub_(highest).exp_()
            total.mul_(shrink).add_(scores.sum(dim=1, keepdim=True))
            target.mul_(shrink).add_(linear(scores, values.t()))
        target.div_(total)
