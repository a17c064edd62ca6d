"""CPU forms of the image encoders.

Window attention is independent for each window, and a 3x3 convolution needs one more row on either side. Blocks
therefore run on horizontal strips of the feature map whose intermediates fit the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import SizeHW
from segany.kernels import attention
from segany.kernels.compute import CACHE_BUDGET, fast_form, linear
from segany.kernels.strips import by_rows, convolve_in_strips, rows_of
from segany.models.mobile_sam import tiny_vit
from segany.models.sam import vit
from segany.models.sam2 import fpn, hiera
from segany.nn.replaced import is_plain

_MIN_ROWS = 1024
"""Fewest positions per chunk in a block of Hiera, as for `by_rows`."""


class FastVitAttention(vit.Attention):
    """Attends in chunks whose scores fit the cache."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, size_hw: SizeHW) -> Tensor:
        return attention.relative_position_attention(query, key, value, self.rel_pos_h, self.rel_pos_w, size_hw)


class FastVitBlock(vit.Block):
    """Runs one row of windows at a time."""

    def forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        window_size = self.attn.window_size
        if window_size is None or drop_path_scales is not None or not fast_form(self, x):
            return super().forward(x, drop_path_scales)
        # A list comprehension has no `super()`.
        forward = super().forward
        return torch.cat([forward(strip) for strip in x.split(window_size, dim=1)], dim=1)


def _without_row_padding(conv: tiny_vit.ConvBn, x: Tensor) -> Tensor:
    """Apply a convolution to a strip that includes the rows above and below."""
    return conv.run(x, (0, conv.size // 2))


class FastTinyVitPatchEmbedding(tiny_vit.PatchEmbedding):
    """Runs both convolutions on one strip at a time."""

    def forward(self, pixels: Tensor) -> Tensor:
        if not fast_form(self, pixels):
            return super().forward(pixels)
        first, second = self.convolutions()
        x = pixels.permute(0, 2, 3, 1).contiguous()
        return convolve_in_strips(
            lambda top, bottom: F.gelu(_without_row_padding(first, rows_of(x, 2 * top - 1, 2 * bottom))),
            lambda rows, _top, _bottom: _without_row_padding(second, rows),
            (x.shape[1] // 2, x.shape[2] // 2, second.c.in_channels),
            stride=2,
        )


class FastMbConv(tiny_vit.MbConv):
    """Computes the expanded feature map one strip at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not fast_form(self, x):
            return super().forward(x)

        def narrowed(wide: Tensor, top: int, bottom: int) -> Tensor:
            narrow = self.conv3(F.gelu(_without_row_padding(self.conv2, wide)))
            return F.gelu(x[:, top:bottom] + narrow)

        wide_shape = (x.shape[1], x.shape[2], self.conv2.c.in_channels)
        return convolve_in_strips(lambda top, bottom: F.gelu(self.conv1(x[:, top:bottom])), narrowed, wide_shape)


class FastPatchMerging(tiny_vit.PatchMerging):
    """Computes the intermediate feature map one strip at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not fast_form(self, x):
            return super().forward(x)
        return convolve_in_strips(
            lambda top, bottom: F.gelu(self.conv1(x[:, top:bottom])),
            lambda rows, _top, _bottom: self.conv3(F.gelu(_without_row_padding(self.conv2, rows))),
            (x.shape[1], x.shape[2], self.conv2.c.in_channels),
            self.stride,
        )


class FastWindowAttention(tiny_vit.WindowAttention):
    """Attends in chunks of rows of windows."""

    def forward(self, x: Tensor) -> Tensor:
        if not fast_form(self, x):
            return super().forward(x)
        bias = self.bias()[None]
        rows = max(1, CACHE_BUDGET // (self.window_size * x.shape[2] * self.qkv.out_features))
        return torch.cat([self.attend(strip, bias) for strip in x.split(rows * self.window_size, dim=1)], dim=1)


class FastTinyVitMlp(tiny_vit.Mlp):
    """Processes rows in chunks that fit the cache."""

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(super().forward, x, self.fc1.out_features) if fast_form(self, x) else super().forward(x)


class FastPooledAttention(hiera.PooledAttention):
    """Attends in chunks whose scores fit the cache."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention.attend(query, key, value)


class FastHieraBlock(hiera.Block):
    """Runs attention in chunks of rows of windows, and the MLP in chunks of rows."""

    def attend(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        window_size = self.attn.window_size
        if window_size is None or scale is not None or not fast_form(self, x):
            return super().attend(x, scale)
        attend, positions = super().attend, window_size * x.shape[2]
        rows = max(-(-_MIN_ROWS // positions), CACHE_BUDGET // (positions * self.attn.qkv.out_features))
        return torch.cat([attend(strip) for strip in x.split(rows * window_size, dim=1)], dim=1)

    def feed_forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        if scale is not None or not fast_form(self, x):
            return super().feed_forward(x, scale)
        return by_rows(super().feed_forward, x, self.mlp.hidden)


class FastFeaturePyramid(fpn.FeaturePyramid):
    """Computes the 1x1 convolutions with `linear`."""

    def project(self, x: Tensor, index: int) -> Tensor:
        conv = self.conv(index)
        if not is_plain(conv):
            return super().project(x, index)
        return linear(x, conv.weight.flatten(1), conv.bias)


FORMS: tuple[type[nn.Module], ...] = (
    FastVitAttention,
    FastVitBlock,
    FastTinyVitPatchEmbedding,
    FastMbConv,
    FastPatchMerging,
    FastWindowAttention,
    FastTinyVitMlp,
    FastPooledAttention,
    FastHieraBlock,
    FastFeaturePyramid,
)
