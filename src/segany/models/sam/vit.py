"""The image encoder of SAM: a plain ViT with window attention and global attention (ViTDet; SAM, section A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import SizeHW
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.image_encoder import ImageEncoder
from segany.models.sam.config import VitConfig
from segany.nn.attention import attend, merge_heads, relative_position_attention, split_heads
from segany.nn.layers import FeedForward, LayerNorm2d, drop_path_residual
from segany.nn.replaced import is_plain
from segany.nn.windows import partition, unpartition


class PatchEmbedding(nn.Module):
    """Patch embedding with non-overlapping patches: [B, 3, S, S] to [B, h, w, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, EMBEDDING_STRIDE, stride=EMBEDDING_STRIDE)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.proj(pixels)
        return x.permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Global or window self-attention over [B, H, W, C] with decomposed relative position embeddings."""

    def __init__(self, width: int, heads: int, map_size: int, window_size: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.window_size = window_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        table_rows = 2 * (window_size or map_size) - 1
        self.rel_pos_h = nn.Parameter(torch.zeros(table_rows, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(table_rows, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        size_hw = (x.shape[1], x.shape[2])
        if self.window_size is None:
            attended = self._attend(self.qkv(x).flatten(1, 2), size_hw)
            return self.proj(attended.unflatten(1, size_hw))
        attended = self._attend(self._project_windows(x, self.window_size), (self.window_size, self.window_size))
        return self.proj(unpartition(attended, self.window_size, size_hw))

    def _project_windows(self, x: Tensor, size: int) -> Tensor:
        """Project [B, H, W, C] to the queries, keys and values of windows: [B * windows, size * size, 3 * C]."""
        if is_plain(self.qkv):
            # The official code pads with zeros before the projection. The projection of zero is the bias, so padding
            # with the bias after the projection is equivalent and projects fewer positions.
            return partition(self.qkv(x), size, fill=self.qkv.bias)
        return self.qkv(partition(x, size).unflatten(1, (size, size))).flatten(1, 2)

    def over_tokens(self, x: Tensor) -> Tensor:
        """Global attention over tokens [B, T, C] without relative position embeddings."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(merge_heads(attend(query, key, value)))

    def _attend(self, qkv: Tensor, size_hw: SizeHW) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        return merge_heads(self.attend(query, key, value, size_hw))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, size_hw: SizeHW) -> Tensor:
        """Attend with relative position embeddings: [B, heads, H * W, D] to [B, heads, H * W, D]."""
        return relative_position_attention(query, key, value, self.rel_pos_h, self.rel_pos_w, size_hw)


class Block(nn.Module):
    """A transformer block over [B, H, W, C]."""

    def __init__(self, config: VitConfig, window_size: int | None) -> None:
        super().__init__()
        map_size = config.input_size // EMBEDDING_STRIDE
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads, map_size, window_size)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = FeedForward(config.width, config.mlp_ratio * config.width)

    def forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Apply the block; `drop_path_scales` [2, B] are for drop path of attention and MLP."""
        of_attention, of_mlp = (None, None) if drop_path_scales is None else drop_path_scales
        x = drop_path_residual(x, self.attn(self.norm1(x)), of_attention)
        return drop_path_residual(x, self.mlp(self.norm2(x)), of_mlp)

    def over_tokens(self, x: Tensor) -> Tensor:
        """Apply the block to a subset of patches [B, T, C], without windows and relative position embeddings."""
        x = x + self.attn.over_tokens(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def make_neck(channels_in: int, channels_out: int) -> nn.Sequential:
    """Make the neck, which reduces the channels to those of the image embedding: two convolutions with norms."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        LayerNorm2d(channels_out),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        LayerNorm2d(channels_out),
    )


class ImageEncoderVit(ImageEncoder):
    """Encodes pixels [B, 3, S, S], normalized and padded, to the image embedding [B, 256, S / 16, S / 16]."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        size = config.input_size // EMBEDDING_STRIDE
        self.patch_embed = PatchEmbedding(config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, size, size, config.width))
        self.blocks = nn.ModuleList(
            Block(config, window_size=None if index in config.global_blocks else config.window_size)
            for index in range(config.depth)
        )
        self.neck = make_neck(config.width, config.out_channels)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def forward(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Encode pixels; `drop_path_scales` [depth, 2, B] are for drop path."""
        x = self.patch_embed(pixels) + self.pos_embed
        for index, block in enumerate(self.blocks):
            x = block(x) if drop_path_scales is None else block(x, drop_path_scales[index])
        return self.neck(x.permute(0, 3, 1, 2))

    @property
    def patch_positions(self) -> nn.Parameter:
        return self.pos_embed

    def encode_patches(self, patches: Tensor, positions: Tensor) -> Tensor:
        # The patches do not overlap, so the convolution is a linear layer.
        conv = self.patch_embed.proj
        x = F.linear(patches, conv.weight.flatten(1), conv.bias) + positions
        for block in self.blocks:
            x = cast(Block, block).over_tokens(x)
        return x

    def patch_parameters(self) -> list[nn.Parameter]:
        relative = ("rel_pos_h", "rel_pos_w")
        parts = (self.patch_embed, self.blocks)
        return [x for part in parts for name, x in part.named_parameters() if not name.endswith(relative)]
