"""A frame conditioned on what is remembered of an object (SAM 2, section 4, "Memory attention")."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam2.config import MemoryConfig
from segany.nn.attention import attend
from segany.nn.positions import Rotations, axial_rotations, halves_first, sine_grid

_POSITION_WEIGHT = 0.1
"""Weight of the frame's own positions where it enters."""


class RotaryAttention(nn.Module):
    """Attention of one head with rotary positions, in real arithmetic."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(source_width, width)
        self.v_proj = nn.Linear(source_width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int | None = None
    ) -> Tensor:
        """Attend from a frame to positions of frames.

        Args:
            x: [O, T, C].
            keys, values: [O, S, C'], whole frames of T positions, and then `num_k_exclude_rope` tokens that
                lie nowhere; by default one frame.
            rotations: of the T positions.

        Returns:
            [O, T, C].
        """
        query = rotations.rotate(self.project(x, self.q_proj))
        key = self.rotated_keys(keys, rotations, num_k_exclude_rope)
        attended = attend(query[:, None], key[:, None], self.v_proj(values)[:, None])[:, 0]
        return self.out_proj(attended)

    def rotated_keys(self, keys: Tensor, rotations: Rotations, num_k_exclude_rope: int | None) -> Tensor:
        """Keys [O, S, C'] projected and, but for the last, rotated: [O, S, C]."""
        key = self.project(keys, self.k_proj)
        if num_k_exclude_rope is None:
            return rotations.rotate(key)
        positions = len(rotations.cosines)
        spatial, rest = key.split([key.shape[1] - num_k_exclude_rope, num_k_exclude_rope], dim=1)
        by_frame = rotations.rotate(spatial.unflatten(1, (-1, positions)))
        return torch.cat([by_frame.flatten(1, 2), rest], dim=1)

    def project(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """A projection whose channels are in the order that `Rotations` take."""
        return F.linear(x, halves_first(layer.weight), halves_first(layer.bias))


class MemoryAttentionLayer(nn.Module):
    """The frame attends to itself, then to the memory, then an MLP."""

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
        x = self.attend_frame(x, rotations)
        return self.attend_memory(x, keys, values, rotations, num_k_exclude_rope)

    def attend_frame(self, x: Tensor, rotations: Rotations) -> Tensor:
        """The frame attends to itself."""
        normed = self.norm1(x)
        return x + self.self_attn(normed, normed, normed, rotations)

    def attend_memory(
        self, x: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, num_k_exclude_rope: int
    ) -> Tensor:
        """The frame attends to the memory, and the MLP follows."""
        x = x + self.cross_attn_image(self.norm2(x), keys, values, rotations, num_k_exclude_rope)
        return x + self.feed_forward(self.norm3(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The MLP."""
        return self.linear2(F.relu(self.linear1(x)))


class AttendedFrame(NamedTuple):
    """A frame after the first layer's self-attention, the same for all objects.

    Attributes:
        features: [1, T, C].
        rotations: of the frame's positions.
    """

    features: Tensor
    rotations: Rotations


class MemoryAttention(nn.Module):
    """Layers that bring memories into the features of a frame."""

    def __init__(self, width: int, memory: MemoryConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(width, memory) for _ in range(memory.depth))
        self.norm = nn.LayerNorm(width)

    def attend_frame(self, image: Tensor) -> AttendedFrame:
        """What is done once for all objects of a frame, whose stride-16 features are [1, C, h, w]."""
        size_hw = (image.shape[2], image.shape[3])
        tokens = image.flatten(2).transpose(1, 2)
        rotations = axial_rotations(size_hw, image.shape[1], image)
        x = tokens + _POSITION_WEIGHT * sine_grid(size_hw, image.shape[1], image)
        return AttendedFrame(cast(MemoryAttentionLayer, self.layers[0]).attend_frame(x, rotations), rotations)

    def forward(self, frame: AttendedFrame, keys: Tensor, values: Tensor, num_k_exclude_rope: int) -> Tensor:
        """Condition a frame on the memories of O objects.

        Args:
            frame: of `attend_frame`.
            keys: [O, S, C_memory], memories with their positions in space and time: whole frames, and
                then `num_k_exclude_rope` tokens of object pointers.
            values: [O, S, C_memory], memories without positions.

        Returns:
            [O, T, C].
        """
        first, *others = (cast(MemoryAttentionLayer, layer) for layer in self.layers)
        x = frame.features.expand(len(keys), -1, -1)
        x = first.attend_memory(x, keys, values, frame.rotations, num_k_exclude_rope)
        for layer in others:
            x = layer(x, keys, values, frame.rotations, num_k_exclude_rope)
        return self.norm(x)
