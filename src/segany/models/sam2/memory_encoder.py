"""A frame and a mask of it to a memory (SAM 2, section 4, "Memory encoder")."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.nn.layers import LayerNorm2d

_MASK_WIDTHS = (1, 4, 16, 64, 256)
"""Channels of a mask as its resolution is halved four times."""


class MaskDownsampler(nn.Module):
    """A mask [O, 1, S, S] to [O, C, S / 16, S / 16]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(_MASK_WIDTHS):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), LayerNorm2d(wide), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(_MASK_WIDTHS[-1], channels, 1))

    def forward(self, mask: Tensor) -> Tensor:
        return self.encoder(mask)


class FuserBlock(nn.Module):
    """A ConvNeXt block (Liu et al., 2022) over [O, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by_position(self.dwconv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def by_position(self, x: Tensor) -> Tensor:
        """What follows the convolution, each position of [..., C] alone."""
        return self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm.over_last_axis(x))))


class Fuser(nn.Module):
    """Blocks over the sum of frame and mask."""

    def __init__(self, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(FuserBlock(channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MemoryEncoder(nn.Module):
    """Frame features and masks to memories."""

    def __init__(self, channels: int, memory_channels: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(channels)
        self.pix_feat_proj = nn.Conv2d(channels, channels, 1)
        self.fuser = Fuser(channels)
        self.out_proj = nn.Conv2d(channels, memory_channels, 1)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Encode O masks of one frame.

        Args:
            image: [1, C, h, w], the frame's stride-16 features.
            masks: [O, 1, 16h, 16w], in the range that memories are made of.

        Returns:
            [O, C_memory, h, w].
        """
        return self.out_proj(self.fuser(self.pix_feat_proj(image) + self.mask_downsampler(masks)))
