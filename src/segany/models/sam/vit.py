"""SAM's image encoder: a plain ViT with windowed and global attention (ViTDet; SAM, section A)."""

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
from segany.nn.windows import partition, unpartition


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens: [B, 3, S, S] to [B, h, w, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, EMBEDDING_STRIDE, stride=EMBEDDING_STRIDE)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.proj(pixels)
        return x.permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Self-attention over a map [B, H, W, C], whole or in windows, with decomposed relative positions."""

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
        qkv = self.qkv(x)
        if self.window_size is None:
            attended = self._attend(qkv.flatten(1, 2), size_hw)
            return self.proj(attended.unflatten(1, size_hw))
        # Windows at the border reach over zeros, whose projection is the bias: projecting before the
        # map is padded gives the same numbers for fewer positions.
        windows = partition(qkv, self.window_size, fill=self.qkv.bias)
        attended = self._attend(windows, (self.window_size, self.window_size))
        return self.proj(unpartition(attended, self.window_size, size_hw))

    def over_tokens(self, x: Tensor) -> Tensor:
        """Attention of tokens [B, T, C] without windows and relative positions."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(merge_heads(attend(query, key, value)))

    def _attend(self, qkv: Tensor, size_hw: SizeHW) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        return merge_heads(self.attend(query, key, value, size_hw))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, size_hw: SizeHW) -> Tensor:
        """[B, heads, H * W, D] to the same, with the tables of relative positions."""
        return relative_position_attention(query, key, value, self.rel_pos_h, self.rel_pos_w, size_hw)


class Block(nn.Module):
    """One transformer block over a map [B, H, W, C]."""

    def __init__(self, config: VitConfig, window_size: int | None) -> None:
        super().__init__()
        map_size = config.input_size // EMBEDDING_STRIDE
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads, map_size, window_size)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = FeedForward(config.width, config.mlp_ratio * config.width)

    def forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Apply the block; `drop_path_scales` [2, B] are for `drop_path_residual`, attention first."""
        of_attention, of_mlp = (None, None) if drop_path_scales is None else drop_path_scales
        x = drop_path_residual(x, self.attn(self.norm1(x)), of_attention)
        return drop_path_residual(x, self.mlp(self.norm2(x)), of_mlp)

    def over_tokens(self, x: Tensor) -> Tensor:
        """The block over tokens [B, T, C] that lie anywhere, without windows and relative positions."""
        x = x + self.attn.over_tokens(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def make_neck(channels_in: int, channels_out: int) -> nn.Sequential:
    """The two convolutions that end every image encoder of the family."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        LayerNorm2d(channels_out),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        LayerNorm2d(channels_out),
    )


class ImageEncoderVit(ImageEncoder):
    """Pixels [B, 3, S, S], normalized and padded, to the image embedding [B, 256, S / 16, S / 16]."""

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
        """Encode pixels; `drop_path_scales` [depth, 2, B] are for `drop_path_residual`."""
        x = self.patch_embed(pixels) + self.pos_embed
        for index, block in enumerate(self.blocks):
            x = block(x) if drop_path_scales is None else block(x, drop_path_scales[index])
        return self.neck(x.permute(0, 3, 1, 2))

    @property
    def patch_positions(self) -> nn.Parameter:
        return self.pos_embed

    def encode_patches(self, patches: Tensor, positions: Tensor) -> Tensor:
        # The patches do not overlap, so the convolution is a linear layer of each.
        conv = self.patch_embed.proj
        x = F.linear(patches, conv.weight.flatten(1), conv.bias) + positions
        for block in self.blocks:
            x = cast(Block, block).over_tokens(x)
        return x

    def patch_parameters(self) -> list[nn.Parameter]:
        relative = ("rel_pos_h", "rel_pos_w")
        parts = (self.patch_embed, self.blocks)
        return [x for part in parts for name, x in part.named_parameters() if not name.endswith(relative)]
