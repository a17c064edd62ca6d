"""What blocks of encoders need only in training: dropped branches, and computing again instead of keeping."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def add_branch(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """x + scale * branch, for maps [B, H, W, C] and a number an image [B]; None is one.

    With scales of 0 and of 1 / (share kept) this is stochastic depth (Huang et al., 2016), or drop path.
    """
    return x + branch if scale is None else x + scale.to(branch.dtype)[:, None, None, None] * branch


def run_block(block: nn.Module, x: Tensor, branch_scales: Tensor | None = None, *, recompute: bool) -> Tensor:
    """A block of an encoder, of which only the input is kept for the backward pass where `recompute` is set.

    Args:
        block: takes x, and `branch_scales` where there are any.
        x: [B, H, W, C].
        branch_scales: [2, B], see `add_branch`.
        recompute: compute the block again in the backward pass: a third more work, a fraction of the memory.
    """
    given = (x,) if branch_scales is None else (x, branch_scales)
    if recompute and torch.is_grad_enabled():
        return cast(Tensor, checkpoint(block, *given, use_reentrant=False))
    return cast(Tensor, block(*given))


def recompute_blocks(module: nn.Module, *, recompute: bool) -> None:
    """Set or unset `recompute` for all encoders in a module."""
    for part in module.modules():
        if isinstance(getattr(part, "recompute", None), bool):
            part.recompute = recompute  # type: ignore[assignment]  # a bool is neither parameter nor module
