"""The image encoder of MobileSAM: TinyViT-5M (Wu et al., 2022) with a stride of 16.

Feature maps are [B, H, W, C] throughout; viewed as [B, C, H, W] they have the channels-last memory format, in which
convolutions are fastest.
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
from segany.nn.layers import by_channels_first
from segany.nn.replaced import is_plain
from segany.nn.windows import partition, unpartition


class ConvBn(nn.Module):
    """A convolution with batch norm over [B, H, W, C], folded into one convolution in evaluation mode."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.size = size
        self.c = nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.size // 2)

    def run(self, x: Tensor, padding: int | tuple[int, int]) -> Tensor:
        """Apply the layer with another padding, unless its parts have been replaced."""
        if not is_plain(self.c, self.bn):
            return by_channels_first(self.bn, by_channels_first(self.c, x))
        x = x.permute(0, 3, 1, 2)
        if self.training:
            out: Tensor = self.bn(F.conv2d(x, self.c.weight, None, self.c.stride, padding, groups=self.c.groups))
        else:
            weight, bias = self.folded()
            out = F.conv2d(x, weight, bias, self.c.stride, padding, groups=self.c.groups)
        return out.permute(0, 2, 3, 1)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Fold the batch norm into weight and bias of the convolution. It takes microseconds, so it is not cached."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        if mean is None or variance is None:
            raise RuntimeError("batch norm without running statistics cannot be folded")
        scale = self.bn.weight / torch.sqrt(variance + self.bn.eps)
        return self.c.weight * scale[:, None, None, None], self.bn.bias - mean * scale


class PatchEmbedding(nn.Module):
    """Patch embedding by two strided convolutions: [B, 3, S, S] to [B, S / 4, S / 4, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBn(3, width // 2, 3, 2), nn.GELU(), ConvBn(width // 2, width, 3, 2))

    def forward(self, pixels: Tensor) -> Tensor:
        first, second = self.convolutions()
        return second(F.gelu(first(pixels.permute(0, 2, 3, 1))))

    def convolutions(self) -> tuple[ConvBn, ConvBn]:
        return cast(ConvBn, self.seq[0]), cast(ConvBn, self.seq[2])


class MbConv(nn.Module):
    """Inverted bottleneck (MBConv): 1x1 expansion, 3x3 depthwise convolution, 1x1 projection, residual."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.conv1 = ConvBn(width, hidden)
        self.conv2 = ConvBn(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBn(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """The downsampling between stages: changes the width, and halves the resolution if `stride` is 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvBn(channels_in, channels_out)
        self.conv2 = ConvBn(channels_out, channels_out, 3, stride, groups=channels_out)
        self.conv3 = ConvBn(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Self-attention within windows with a learned attention bias per relative position (LeViT, section 3.3)."""

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
        """Attend within windows: [B, H, W, C] to [B, H, W, C].

        Args:
            x: [B, H, W, C].
            bias: attention bias [1, heads, T, T] of the T positions of a window.
        """
        size_hw = (x.shape[1], x.shape[2])
        if is_plain(self.norm, self.qkv):
            # The padding is zero before the norm, so it equals the bias of the norm after it.
            windows = partition(self.qkv(self.norm(x)), self.window_size, fill=self.qkv(self.norm.bias))
        else:
            windows = self.qkv(self.norm(partition(x, self.window_size)))
        query, key, value = split_heads(windows, self.heads).chunk(3, dim=-1)  # [B * windows, heads, T, D]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(unpartition(merge_heads(attended), self.window_size, size_hw))

    def bias(self) -> Tensor:
        """Look up the attention bias by row and column distance: [heads, T, T]."""
        size = self.window_size
        position = torch.arange(size * size, device=self.attention_biases.device)
        rows, columns = position // size, position % size
        rows_apart = (rows[:, None] - rows[None, :]).abs()
        columns_apart = (columns[:, None] - columns[None, :]).abs()
        return self.attention_biases[:, rows_apart * size + columns_apart]


class Mlp(nn.Module):
    """MLP with its layer norm, which TinyViT counts as part of the MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Window attention, a 3x3 depthwise convolution, and an MLP."""

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
    """The blocks of one stage and the downsampling to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ImageEncoderTinyVit(ImageEncoder):
    """Encodes pixels [B, 3, S, S], normalized and padded, to the image embedding [B, 256, S / 16, S / 16]."""

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
