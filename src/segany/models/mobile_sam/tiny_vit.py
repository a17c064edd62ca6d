"""MobileSAM's image encoder: TinyViT-5M (Wu et al., 2022), kept at a stride of 16.

Maps are [B, H, W, C] throughout; seen as [B, C, H, W] they are in the channels-last layout that
convolutions run fastest in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.image_encoder import ImageEncoder
from segany.models.mobile_sam.config import TinyVitConfig
from segany.models.sam.vit import make_neck
from segany.nn.attention import merge_heads, split_heads
from segany.nn.windows import partition, unpartition


class ConvBn(nn.Module):
    """A convolution and its batch norm over [B, H, W, C], folded into one convolution in evaluation."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.size = size
        self.c = nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.size // 2)

    def run(self, x: Tensor, padding: int | tuple[int, int]) -> Tensor:
        """The same with another padding."""
        x = x.permute(0, 3, 1, 2)
        if self.training:
            out: Tensor = self.bn(F.conv2d(x, self.c.weight, None, self.c.stride, padding, groups=self.c.groups))
        else:
            weight, bias = self.folded()
            out = F.conv2d(x, weight, bias, self.c.stride, padding, groups=self.c.groups)
        return out.permute(0, 2, 3, 1)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that does both. Costs microseconds, so it is never stored."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        if mean is None or variance is None:
            raise RuntimeError("batch norm without running statistics cannot be folded")
        scale = self.bn.weight / torch.sqrt(variance + self.bn.eps)
        return self.c.weight * scale[:, None, None, None], self.bn.bias - mean * scale


class PatchEmbedding(nn.Module):
    """Pixels [B, 3, S, S] to [B, S / 4, S / 4, C] by two strided convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBn(3, width // 2, 3, 2), nn.GELU(), ConvBn(width // 2, width, 3, 2))

    def forward(self, pixels: Tensor) -> Tensor:
        first, second = self.convolutions()
        return second(F.gelu(first(pixels.permute(0, 2, 3, 1))))

    def convolutions(self) -> tuple[ConvBn, ConvBn]:
        return cast(ConvBn, self.seq[0]), cast(ConvBn, self.seq[2])


class MbConv(nn.Module):
    """Inverted bottleneck: widen, mix 3 x 3 each channel alone, narrow, add."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.conv1 = ConvBn(width, hidden)
        self.conv2 = ConvBn(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBn(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Between stages: change the width, and halve the resolution unless the next stage keeps it."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvBn(channels_in, channels_out)
        self.conv2 = ConvBn(channels_out, channels_out, 3, stride, groups=channels_out)
        self.conv3 = ConvBn(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each pair of offsets (LeViT, section 3.3)."""

    def __init__(self, width: int, heads: int, window_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.window_size = window_size
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window_size**2))

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, self.bias()[None])

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, H, W, C] to the same, with the bias [1, heads, T, T] of the windows' T positions."""
        size_hw = (x.shape[1], x.shape[2])
        qkv = self.qkv(self.norm(x))
        # The padding around the map is zero before the norm, so after it, it is the norm's bias.
        fill = self.qkv(self.norm.bias)
        windows = partition(qkv, self.window_size, fill=fill)
        query, key, value = split_heads(windows, self.heads).chunk(3, dim=-1)  # [B * windows, heads, T, D]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(unpartition(merge_heads(attended), self.window_size, size_hw))

    def bias(self) -> Tensor:
        """[heads, T, T]: one learned number for each |rows apart|, |columns apart|."""
        size = self.window_size
        position = torch.arange(size * size, device=self.attention_biases.device)
        rows, columns = position // size, position % size
        rows_apart = (rows[:, None] - rows[None, :]).abs()
        columns_apart = (columns[:, None] - columns[None, :]).abs()
        return self.attention_biases[:, rows_apart * size + columns_apart]


class Mlp(nn.Module):
    """Norm and two linear layers; TinyViT keeps the norm inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Window attention, a 3 x 3 convolution of each channel alone, and an MLP."""

    def __init__(self, width: int, heads: int, window_size: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window_size)
        self.local_conv = ConvBn(width, width, 3, groups=width)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        x = self.local_conv(x)
        return x + self.mlp(x)


class Stage(nn.Module):
    """The blocks of one stage and the step to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ImageEncoderTinyVit(ImageEncoder):
    """Pixels [B, 3, S, S], normalized and padded, to the image embedding [B, 256, S / 16, S / 16]."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(config.widths[0])
        self.layers = nn.ModuleList(self._stage(config, index) for index in range(4))
        self.neck = make_neck(config.widths[-1], config.out_channels)

    @staticmethod
    def _stage(config: TinyVitConfig, index: int) -> Stage:
        width, depth = config.widths[index], config.depths[index]
        blocks: list[nn.Module] = [
            MbConv(width, config.conv_expansion)
            if index == 0
            else Block(width, config.heads[index], config.window_sizes[index], config.mlp_ratio)
            for _ in range(depth)
        ]
        if index == 3:
            return Stage(blocks, None)
        # The last stage keeps the resolution of the third (MobileSAM, section 3).
        return Stage(blocks, PatchMerging(width, config.widths[index + 1], stride=1 if index == 2 else 2))

    def encoder_blocks(self) -> Sequence[nn.Module]:
        return [block for stage in self.layers for block in cast(Stage, stage).blocks]

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed(pixels)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x.permute(0, 3, 1, 2))
