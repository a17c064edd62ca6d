"""The trunk of SAM 2's image encoder: Hiera, a hierarchical ViT with window attention and query pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam2.config import PATCH_STRIDE, STAGES, HieraConfig
from segany.nn.attention import attend, merge_heads, split_heads
from segany.nn.layers import MLP, drop_path_residual
from segany.nn.replaced import is_plain
from segany.nn.windows import partition, unpartition


class PatchEmbedding(nn.Module):
    """Patch embedding with overlapping patches: [B, 3, S, S] to [B, S / 4, S / 4, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, stride=PATCH_STRIDE, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.proj(pixels)
        return x.permute(0, 2, 3, 1)


def pool(x: Tensor) -> Tensor:
    """2 x 2 max pooling: [B, H, W, C] to [B, H / 2, W / 2, C]."""
    top = torch.maximum(x[:, ::2, ::2], x[:, ::2, 1::2])
    return torch.maximum(top, torch.maximum(x[:, 1::2, ::2], x[:, 1::2, 1::2]))


class PooledAttention(nn.Module):
    """Global or window self-attention with optional query pooling, which halves the resolution."""

    def __init__(self, channels_in: int, width: int, heads: int, window_size: int | None, *, pooled: bool) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.window_size = window_size
        self.pooled = pooled
        self.qkv = nn.Linear(channels_in, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: [B, H, W, C] to [B, H, W, C'], or to [B, H / 2, W / 2, C'] with query pooling."""
        if self.window_size is not None and not is_plain(self.qkv):
            return self._attend_projecting_windows(x, self.window_size)
        qkv = self.qkv(x)
        width = self.width
        query, rest = qkv[..., :width], qkv[..., width:]
        if self.pooled:
            query = pool(query)
        size_hw = (query.shape[1], query.shape[2])
        if self.window_size is None:
            return self.proj(self._attend(query.flatten(1, 2), rest.flatten(1, 2)).unflatten(1, size_hw))
        # The official code pads with zeros before the projection. The projection of zero is the bias, pooled or not,
        # so padding with the bias after the projection is equivalent and projects fewer positions.
        query_size = self.window_size // 2 if self.pooled else self.window_size
        query = partition(query, query_size, fill=self.qkv.bias[:width])
        rest = partition(rest, self.window_size, fill=self.qkv.bias[width:])
        return self.proj(unpartition(self._attend(query, rest), query_size, size_hw))

    def _attend_projecting_windows(self, x: Tensor, size: int) -> Tensor:
        """Attend within windows in the order of the official code: padding, projection, pooling."""
        qkv = self.qkv(partition(x, size).unflatten(1, (size, size)))
        query, rest = qkv[..., : self.width], qkv[..., self.width :]
        height, width = x.shape[1], x.shape[2]
        if self.pooled:
            query, size, height, width = pool(query), size // 2, height // 2, width // 2
        attended = self._attend(query.flatten(1, 2), rest.flatten(1, 2))
        return self.proj(unpartition(attended, size, (height, width)))

    def _attend(self, query: Tensor, key_and_value: Tensor) -> Tensor:
        key, value = key_and_value.chunk(2, dim=-1)
        return merge_heads(self.attend(*(split_heads(part, self.heads) for part in (query, key, value))))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from queries [B, heads, T, D] to keys and values [B, heads, S, D]: [B, heads, T, D]."""
        return attend(query, key, value)


class Block(nn.Module):
    """A transformer block. The first block of a stage doubles the channels and halves the resolution."""

    def __init__(self, channels_in: int, width: int, heads: int, window_size: int | None, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels_in, eps=1e-6)
        self.starts_stage = channels_in != width
        self.attn = PooledAttention(channels_in, width, heads, window_size, pooled=self.starts_stage)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, mlp_ratio * width, width, 2, "gelu")
        if self.starts_stage:
            self.proj = nn.Linear(channels_in, width)

    def forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Apply the block: [B, H, W, C] to [B, H, W, C], or to [B, H / 2, W / 2, 2 C].

        `drop_path_scales` [2, B] are for drop path of attention and MLP.
        """
        of_attention, of_mlp = (None, None) if drop_path_scales is None else drop_path_scales
        return self.feed_forward(self.attend(x, of_attention), of_mlp)

    def attend(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Apply attention and, in the first block of a stage, query pooling."""
        normed = self.norm1(x)
        shortcut = pool(self.proj(normed)) if self.starts_stage else x
        return drop_path_residual(shortcut, self.attn(normed), scale)

    def feed_forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Apply the MLP."""
        return drop_path_residual(x, self.mlp(self.norm2(x)), scale)


class Hiera(nn.Module):
    """Encodes pixels [B, 3, S, S] to the feature maps of the four stages, [B, H, W, C] each, the finest first."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.stage_ends = [start - 1 for start in (*config.stage_starts[1:], sum(config.depths))]
        self.patch_embed = PatchEmbedding(config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.width, config.position_size, config.position_size))
        window = config.window_sizes[0]
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.width, window, window))
        self.blocks = nn.ModuleList(_make_blocks(config))

    def forward(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> list[Tensor]:
        """Encode pixels; `drop_path_scales` [depth, 2, B] are for drop path."""
        x = self.add_positions(self.patch_embed(pixels))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x) if drop_path_scales is None else block(x, drop_path_scales[index])
            if index in self.stage_ends:
                maps.append(x)
        return maps

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the interpolated global position embedding and the tiled window embedding to [B, H, W, C]."""
        rows, columns = (_interpolation_weights(self.pos_embed, side) for side in (x.shape[1], x.shape[2]))
        table = self.pos_embed[0].permute(1, 2, 0)  # [h, w, C]
        by_row = (rows @ table.flatten(1)).unflatten(1, table.shape[1:])  # [H, w, C]
        x = x + columns @ by_row
        window = self.pos_embed_window.shape[-1]
        by_window = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [B, rows, window, columns, window, C]
        # Not in place: a traced graph would lose what is added to a view.
        by_window = by_window + self.pos_embed_window[0].permute(1, 2, 0)[:, None]
        return by_window.flatten(3, 4).flatten(1, 2)


def _interpolation_weights(table: Tensor, side: int) -> Tensor:
    """Compute bicubic interpolation from n to `side` samples as a matrix [side, n], by interpolating the identity."""
    identity = torch.eye(table.shape[-1], device=table.device, dtype=table.dtype)[None, None]
    return F.interpolate(identity, (side, table.shape[-1]), mode="bicubic")[0, 0]


def _make_blocks(config: HieraConfig) -> list[Block]:
    blocks: list[Block] = []
    for stage in range(STAGES):
        for index in range(config.depths[stage]):
            halves = index == 0 and stage > 0
            width = config.stage_widths[stage]
            window: int | None = config.window_sizes[stage - 1 if halves else stage]
            if len(blocks) in config.global_blocks:
                window = None
            channels_in = width // 2 if halves else width
            blocks.append(Block(channels_in, width, config.heads * 2**stage, window, config.mlp_ratio))
    return blocks
