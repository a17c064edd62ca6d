"""Base class of image encoders: their blocks, the depth of parameters, and the layers for low-rank adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn


class ImageEncoder(nn.Module, ABC):
    """Base class of image encoders.

    `forward(pixels)` takes float [B, 3, S, S], normalized and padded. An encoder with one stride returns the image
    embedding [B, C, S / 16, S / 16]; an encoder with several strides returns a tuple of feature maps in the order of
    `EncoderConfig.strides`. If `EncoderConfig.has_drop_path` is true, `forward` also takes `drop_path_scales`
    [blocks, 2, B]; see `drop_path_residual`.
    """

    @abstractmethod
    def encoder_blocks(self) -> Sequence[nn.Module]:
        """Return the blocks in the order of `forward`, for compilation, gradient checkpointing and drop path."""

    def layer_depths(self) -> dict[str, int]:
        """Return the depth of parameters by name, for layer-wise learning rates: 0 before the blocks, i in block i.

        Blocks are counted from 1. A parameter between two blocks has the depth of the first of them; parameters after
        the last block have no depth. Parameters must be registered in the order of `forward`.
        """
        numbers = {id(x): number for number, block in enumerate(self.encoder_blocks(), 1) for x in block.parameters()}
        last = max(numbers.values(), default=0)
        depths, depth = {}, 0
        for name, parameter in self.named_parameters():
            depth = numbers.get(id(parameter), depth)
            if depth < last or id(parameter) in numbers:
                depths[name] = depth
        return depths

    def adapted_layers(self, target: Literal["attention", "all"]) -> list[str]:
        """Return the names of the layers that get low-rank adapters: the projections of attention, or all linear."""
        linear = [name for name, layer in self.named_modules() if isinstance(layer, nn.Linear)]
        if target == "all":
            return linear
        return [name for name in linear if name.split(".")[-2:] in (["attn", "qkv"], ["attn", "proj"])]

    # For masked autoencoding, if `EncoderConfig.encodes_patches` is true.

    @property
    def patch_positions(self) -> nn.Parameter:
        """The absolute position embedding of the patches, [1, h, w, C]."""
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")

    def encode_patches(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Encode a subset of the patches, the visible ones in masked autoencoding.

        Args:
            patches: [B, V, 3 * 16 * 16], normalized pixels, channel by channel.
            positions: [B, V, C], position embeddings of the patches.

        Returns:
            Tokens [B, V, C], before the neck.
        """
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")

    def patch_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that `encode_patches` uses."""
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")
