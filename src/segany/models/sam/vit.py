"""SAM's image encoder: a plain ViT with windowed and global attention (ViTDet; SAM, section A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segany.kernels.compute import fast_cpu
from segany.models.sam.config import EMBEDDING_STRIDE, VitConfig
from segany.nn.attention import merge_heads, relative_position_attention, split_heads
from segany.nn.layers import FeedForward, LayerNorm2d, Linear, drop_path_residual
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
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
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

    def _attend(self, qkv: Tensor, size_hw: tuple[int, int]) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        return merge_heads(relative_position_attention(query, key, value, self.rel_pos_h, self.rel_pos_w, size_hw))


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
        window_size = self.attn.window_size
        if window_size is not None and drop_path_scales is None and fast_cpu(x):
            # Nothing leaves a window, so a row of windows at a time keeps the intermediates in the cache.
            return torch.cat([self._forward(strip) for strip in x.split(window_size, dim=1)], dim=1)
        return self._forward(x, drop_path_scales)

    def _forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        of_attention, of_mlp = (None, None) if drop_path_scales is None else drop_path_scales
        x = drop_path_residual(x, self.attn(self.norm1(x)), of_attention)
        return drop_path_residual(x, self.mlp(self.norm2(x)), of_mlp)


def make_neck(channels_in: int, channels_out: int) -> nn.Sequential:
    """The two convolutions that end every image encoder of the family."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        LayerNorm2d(channels_out),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        LayerNorm2d(channels_out),
    )


class ImageEncoderVit(nn.Module):
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

    def forward(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Encode pixels; `drop_path_scales` [depth, 2, B] are for `drop_path_residual`."""
        x = self.patch_embed(pixels) + self.pos_embed
        for index, block in enumerate(self.blocks):
            x = block(x) if drop_path_scales is None else block(x, drop_path_scales[index])
        return self.neck(x.permute(0, 3, 1, 2))
