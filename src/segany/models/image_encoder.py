"""What every image encoder is asked: its blocks, how deep each parameter lies, and which layers adapters go to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn


class ImageEncoder(nn.Module, ABC):
    """Pixels to feature maps.

    `forward(pixels)` takes [B, 3, S, S], normalized and padded. An encoder of one stride returns the image
    embedding [B, C, S / 16, S / 16], one of several a tuple of maps in the order of `EncoderConfig.strides`. Where
    `EncoderConfig.drops_branches`, it takes `drop_path_scales` [blocks, 2, B] as well; see `drop_path_residual`.
    """

    @abstractmethod
    def encoder_blocks(self) -> Sequence[nn.Module]:
        """The blocks in the order in which they run: what is compiled, recomputed for gradients, or dropped."""

    def layer_depths(self) -> dict[str, int]:
        """Depth of parameters by name: 0 before the blocks, then the number of the block, counted from 1.

        A parameter between two blocks is as deep as the first of them. Those behind the last block have no depth.
        Parameters must be registered in the order in which they are used.
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
        """Names of the layers that low-rank adapters go to: those into and out of attention, or all linear layers."""
        linear = [name for name, layer in self.named_modules() if isinstance(layer, nn.Linear)]
        if target == "all":
            return linear
        return [name for name in linear if name.split(".")[-2:] in (["attn", "qkv"], ["attn", "proj"])]

    # For masked autoencoding, where `EncoderConfig.encodes_patches`.

    @property
    def patch_positions(self) -> nn.Parameter:
        """The table of the patches' positions, [1, h, w, C]."""
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")

    def encode_patches(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Some patches alone to tokens.

        Args:
            patches: [B, V, 3 * 16 * 16], normalized pixels, channel by channel.
            positions: [B, V, C], encodings of their positions.

        Returns:
            [B, V, C], before the neck.
        """
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")

    def patch_parameters(self) -> list[nn.Parameter]:
        """The parameters that `encode_patches` uses."""
        raise NotImplementedError(f"{type(self).__name__} does not encode patches alone")
