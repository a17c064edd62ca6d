"""Memory attention: frame features conditioned on the memory bank of an object (SAM 2, section 4)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam2.config import MemoryConfig
from segany.nn.attention import attend
from segany.nn.positions import Rotations, axial_rotations, halves_first, sine_grid
from segany.nn.replaced import is_plain

_POSITION_WEIGHT = 0.1
"""Weight of the position encoding that is added to the frame features."""


class RotaryAttention(nn.Module):
    """Single-head attention with rotary position embedding (RoPE), computed with real numbers."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(source_width, width)
        self.v_proj = nn.Linear(source_width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int | None = None
    ) -> Tensor:
        """Attend from the tokens of a frame to tokens of frames.

        Args:
            x: [O, T, C], queries.
            keys, values: [O, S, C'], tokens of frames of T positions each, followed by `num_k_exclude_rope`
                tokens without a position; one frame where that is None.
            rotations: RoPE of the T positions.
            num_k_exclude_rope: keys at the end that are not rotated.

        Returns:
            [O, T, C].
        """
        query = rotations.rotate(self.project(x, self.q_proj))
        key = self.rotated_keys(keys, rotations, num_k_exclude_rope)
        attended = attend(query[:, None], key[:, None], self.v_proj(values)[:, None])[:, 0]
        return self.out_proj(attended)

    def rotated_keys(self, keys: Tensor, rotations: Rotations, num_k_exclude_rope: int | None) -> Tensor:
        """Project keys [O, S, C'] and apply RoPE to all but the last `num_k_exclude_rope`: [O, S, C]."""
        key = self.project(keys, self.k_proj)
        if num_k_exclude_rope is None:
            return rotations.rotate(key)
        positions = len(rotations.cosines)
        spatial, rest = key.split([key.shape[1] - num_k_exclude_rope, num_k_exclude_rope], dim=1)
        by_frame = rotations.rotate(spatial.unflatten(1, (-1, positions)))
        return torch.cat([by_frame.flatten(1, 2), rest], dim=1)

    def project(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """Apply a linear layer with its output channels in the order that `Rotations` require."""
        if not is_plain(layer):
            return halves_first(layer(x).transpose(0, -1)).transpose(0, -1)
        return F.linear(x, halves_first(layer.weight), halves_first(layer.bias))


class MemoryAttentionLayer(nn.Module):
    """Self-attention of the frame, cross-attention to the memory, MLP."""

    def __init__(self, width: int, memory: MemoryConfig) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(width, width)
        self.cross_attn_image = RotaryAttention(width, memory.channels)
        self.linear1 = nn.Linear(width, memory.mlp_width)
        self.linear2 = nn.Linear(memory.mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int) -> Tensor:
        return self.forward_cross_attn(
            self.forward_self_attn(x, rotations), keys, values, rotations, num_k_exclude_rope
        )

    def forward_self_attn(self, x: Tensor, rotations: Rotations) -> Tensor:
        """Self-attention of the frame [O, T, C]."""
        normed = self.norm1(x)
        return x + self.self_attn(normed, normed, normed, rotations)

    def forward_cross_attn(
        self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int
    ) -> Tensor:
        """Cross-attention of the frame [O, T, C] to the memory, then the MLP."""
        x = x + self.cross_attn_image(self.norm2(x), keys, values, rotations, num_k_exclude_rope)
        return x + self.feed_forward(self.norm3(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Apply the MLP."""
        return self.linear2(F.relu(self.linear1(x)))


class FrameTokens(NamedTuple):
    """The part of memory attention that does not depend on the memory, and so is the same for all objects.

    Attributes:
        tokens: [1, T, C], after the self-attention of the first layer.
        rotations: RoPE of the T positions.
    """

    tokens: Tensor
    rotations: Rotations


class MemoryAttention(nn.Module):
    """Layers that condition frame features on memories."""

    def __init__(self, width: int, memory: MemoryConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(width, memory) for _ in range(memory.depth))
        self.norm = nn.LayerNorm(width)

    def encode_frame(self, image: Tensor) -> FrameTokens:
        """Compute what all objects of a frame share, from its stride-16 features [1, C, h, w]."""
        size_hw = (image.shape[2], image.shape[3])
        tokens = image.flatten(2).transpose(1, 2)
        rotations = axial_rotations(size_hw, image.shape[1], image)
        x = tokens + _POSITION_WEIGHT * sine_grid(size_hw, image.shape[1], image)
        return FrameTokens(cast(MemoryAttentionLayer, self.layers[0]).forward_self_attn(x, rotations), rotations)

    def forward(self, frame: FrameTokens, keys: Tensor, values: Tensor, num_k_exclude_rope: int) -> Tensor:
        """Condition a frame on the memories of O objects.

        Args:
            frame: what `encode_frame` returned for the frame.
            keys: [O, S, C_memory], memory tokens with their spatial and temporal position encoding, followed
                by `num_k_exclude_rope` tokens of object pointers.
            values: [O, S, C_memory], the same tokens without position encoding.
            num_k_exclude_rope: tokens of object pointers, which have no spatial position.

        Returns:
            [O, T, C].
        """
        first, *others = (cast(MemoryAttentionLayer, layer) for layer in self.layers)
        x = frame.tokens.expand(len(keys), -1, -1)
        x = first.forward_cross_attn(x, keys, values, frame.rotations, num_k_exclude_rope)
        for layer in others:
            x = layer(x, keys, values, frame.rotations, num_k_exclude_rope)
        return self.norm(x)
