"""Compilation and activation checkpointing of a model, one block at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from segany.models.image_encoder import ImageEncoder
from segany.train.loop_config import LoopConfig


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: those of its image encoder, and elsewhere the modules in module lists."""
    blocks: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, ImageEncoder):
            blocks.extend(child.encoder_blocks())
        elif isinstance(child, nn.ModuleList):
            blocks.extend(child)
        else:
            blocks.extend(blocks_of(child))
    return blocks


@contextlib.contextmanager
def prepared_blocks(blocks: Sequence[nn.Module], config: LoopConfig) -> Iterator[None]:
    """Compile and checkpoint blocks, as the config says, inside the `with` block. Names of weights do not change.

    Every block is compiled separately: equal blocks share one compilation, and a task may call the rest of the
    model in any way. Random numbers inside a block must come from PyTorch's generators, because activation
    checkpointing restores only their state before it recomputes the activations.
    """
    try:
        for block in blocks:
            if config.checkpoint_activations:
                _recompute(block)
            if config.compile:
                block.compile()
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
            block._compiled_call_impl = None


def _recompute(block: nn.Module) -> None:
    forward = block.forward
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _statistics_kept(norms)

    def forward_twice(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        # Compiled blocks do not accept contexts, and update the running statistics only once anyway.
        if norms and not torch.compiler.is_compiling():
            options["context_fn"] = contexts
        return checkpoint(forward, *args, use_reentrant=False, **options)

    block.forward = forward_twice


@contextlib.contextmanager
def _statistics_kept(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Freeze the running statistics of batch norms, which the first forward pass has already updated."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count
