"""Masked autoencoding (He et al., Masked Autoencoders Are Scalable Vision Learners, 2022) of SAM's ViT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import SizeHW
from segany.core.errors import check
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.image_encoder import ImageEncoder
from segany.nn.attention import attend, merge_heads, split_heads
from segany.nn.layers import FeedForward

PATCH_VALUES = 3 * EMBEDDING_STRIDE**2
"""Numbers of a patch: its pixels, channel by channel."""

_LONGEST = 10000.0
"""Ratio of the longest to the shortest wavelength of positions."""


@dataclass(frozen=True)
class MaeConfig:
    """What is masked and how it is reconstructed (MAE, sections 3 and A.1).

    Attributes:
        mask_ratio: share of the patches that the encoder does not see.
        decoder_depth: blocks of the decoder.
        decoder_width: channels of the decoder.
        decoder_heads: attention heads of the decoder.
        mlp_ratio: channels inside the decoder's MLPs, in widths.
        normalize: whether the pixels of a patch are told relative to their own mean and deviation.
        weight_decay: of everything but biases and norms.
        positions: of patches, in the encoder: "sine" replaces them by sines and cosines, as in MAE; "kept"
            leaves those of a model that has learned some. They are not trained here.
        seed: of the decoder's first weights.
    """

    mask_ratio: float = 0.75
    decoder_depth: int = 8
    decoder_width: int = 512
    decoder_heads: int = 16
    mlp_ratio: int = 4
    normalize: bool = True
    weight_decay: float = 0.05
    positions: Literal["sine", "kept"] = "sine"
    seed: int = 0

    def __post_init__(self) -> None:
        check(0 < self.mask_ratio < 1, f"mask_ratio must be in 0..1, both excluded, got {self.mask_ratio}.")
        check(self.decoder_depth >= 1, f"decoder_depth must be at least 1, got {self.decoder_depth}.")
        check(
            self.decoder_width > 0 and self.decoder_width % 4 == 0,
            f"decoder_width must be a positive multiple of 4, got {self.decoder_width}.",
        )
        check(
            self.decoder_heads >= 1 and self.decoder_width % self.decoder_heads == 0,
            f"decoder_width {self.decoder_width} must be a multiple of decoder_heads {self.decoder_heads}.",
        )
        check(self.mlp_ratio >= 1, f"mlp_ratio must be at least 1, got {self.mlp_ratio}.")
        check(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}.")
        check(self.positions in {"sine", "kept"}, f"positions must be 'sine' or 'kept', got {self.positions!r}.")


class DecoderBlock(nn.Module):
    """A plain transformer block over tokens [B, T, C]."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + _attend(self.norm1(x), self.qkv, self.proj, self.heads)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class MaskedAutoencoder(nn.Module):
    """SAM's ViT as an encoder of some of an image's patches, and a decoder that tells the others.

    What is pre-trained is a plain ViT: all its blocks attend over all visible patches, by absolute positions
    alone. Patches scattered over an image make no windows, and have no table of relative positions. Windows
    and those tables come afterwards, as in ViTDet (Li et al., Exploring Plain Vision Transformer Backbones,
    2022, section 3): the tables start from zero, the neck from where it was, and `load_encoder` takes
    everything else over. The class token, which SAM's ViT has none of, is left out (MAE, section A.1, finds it
    not needed).

    Args:
        encoder: it is trained in place.
        config: what is masked, and the decoder.
        grid: side, in patches, of the images to train on; by default that of the encoder's input. The positions of
            the encoder's table are stretched over a smaller grid, as the authors stretch the table of their
            pre-training over larger images when they fine-tune: all of it is trained with.

    Raises:
        ConfigError: the encoder's width is no multiple of 4, which positions need, or the grid is too large.
    """

    def __init__(self, encoder: ImageEncoder, config: MaeConfig | None = None, *, grid: int | None = None) -> None:
        super().__init__()
        config = config or MaeConfig()
        width, decoder_width = encoder.patch_positions.shape[-1], config.decoder_width
        check(width % 4 == 0, f"The width of the encoder must be a multiple of 4, got {width}.")
        table_side = encoder.patch_positions.shape[1]
        self.grid = table_side if grid is None else grid
        check(
            1 <= self.grid <= table_side,
            f"The images have {self.grid} patches a side, but the encoder takes 1 to {table_side}.",
        )
        self.config = config
        self.encoder = encoder
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(decoder_width))
        self.decoder_blocks = nn.ModuleList(
            DecoderBlock(decoder_width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.predict = nn.Linear(decoder_width, PATCH_VALUES)
        self._initialize(torch.Generator().manual_seed(config.seed))

    def _initialize(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)
        for layer in (self.decoder_embed, *self.decoder_blocks.modules(), self.predict):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        table = self.encoder.patch_positions
        if self.config.positions == "sine":
            size = (table.shape[1], table.shape[2])
            table.data.copy_(sine_positions(size, table.shape[-1], self.grid / size[0]).unflatten(0, size))

    def _positions(self, size_hw: SizeHW) -> Tensor:
        """Of the patches of an image at the top left of the grid: [H * W, C]."""
        height, width = size_hw
        table = self.encoder.patch_positions.detach()
        if self.grid == table.shape[1]:
            return table[0, :height, :width].flatten(0, 1)
        if self.config.positions == "sine":
            return sine_positions(size_hw, table.shape[-1]).to(table)
        resized = F.interpolate(table.permute(0, 3, 1, 2), (self.grid, self.grid), mode="bicubic")
        return resized[0, :, :height, :width].flatten(1).T

    def trained(self) -> list[nn.Parameter]:
        """All parameters but those that masked autoencoding does not use, or holds fixed."""
        unused = {id(x) for x in self.encoder.parameters()} - {id(x) for x in self.encoder.patch_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in unused]

    def forward(self, patches: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """Tell all patches of images from some of them.

        Args:
            patches: [B, T, 768], T = H * W, normalized pixels; see `cut_patches`.
            size_hw: H, W in patches, at most the grid. They lie at its top left.
            visible: int64 [B, V], which patches the encoder sees.

        Returns:
            [B, T, 768]. Where `config.normalize`, in units of each patch's own mean and deviation.
        """
        seen = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
        tokens = self.encode(seen, size_hw, visible)
        return self.decode(tokens, size_hw, visible)

    def encode(self, patches: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """The visible patches alone, [B, V, 768], to tokens [B, V, C]."""
        positions = self._positions(size_hw)
        x = self.encoder.encode_patches(patches, positions[visible])
        tokens: Tensor = self.norm(x)
        return tokens

    def decode(self, tokens: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """Tokens of visible patches [B, V, C] to all patches, [B, T, 768]."""
        x = self.put_in_place(self.decoder_embed(tokens), size_hw[0] * size_hw[1], visible)
        x = x + sine_positions(size_hw, x.shape[-1]).to(x)
        for block in self.decoder_blocks:
            x = block(x)
        told: Tensor = self.predict(self.decoder_norm(x))
        return told

    def put_in_place(self, tokens: Tensor, count: int, visible: Tensor) -> Tensor:
        """Tokens [B, V, C] to where they belong among `count` places, [B, T, C]; elsewhere is the mask token."""
        masked = self.mask_token.to(tokens.dtype).expand(len(tokens), count, -1)
        return masked.scatter(1, visible[..., None].expand(-1, -1, tokens.shape[-1]), tokens)


def cut_patches(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H * 16, W * 16] to patches [B, H * W, 768], row by row."""
    patches = pixels.unfold(2, EMBEDDING_STRIDE, EMBEDDING_STRIDE).unfold(3, EMBEDDING_STRIDE, EMBEDDING_STRIDE)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # from [B, 3, H, W, 16, 16]


def join_patches(patches: Tensor, size_hw: SizeHW) -> Tensor:
    """The inverse of `cut_patches`."""
    side = EMBEDDING_STRIDE
    grid = patches.reshape(len(patches), *size_hw, 3, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the numbers of each patch, [B, T, 1]."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def reconstruction_loss(predicted: Tensor, patches: Tensor, visible: Tensor, *, normalize: bool) -> Tensor:
    """Mean squared error over the patches that were not visible (MAE, section 3).

    Args:
        predicted: [B, T, 768].
        patches: [B, T, 768].
        visible: int64 [B, V].
        normalize: whether predictions are in units of each patch's mean and deviation.

    Returns:
        [B]; zero where everything was visible.
    """
    patches, predicted = patches.float(), predicted.float()
    if normalize:
        mean, deviation = patch_statistics(patches)
        patches = (patches - mean) / deviation
    masked = torch.ones_like(patches[..., 0]).scatter(1, visible, 0.0)  # [B, T]
    of_patches = (predicted - patches).square().mean(-1)
    return (of_patches * masked).sum(1) / masked.sum(1).clamp(min=1)


def sine_positions(size_hw: SizeHW, channels: int, scale: float = 1.0) -> Tensor:
    """Sines and cosines of a grid's rows and columns, [H * W, C] (MAE, section A.1).

    The first half of the channels is for the column, the second for the row.

    Args:
        size_hw: H, W of the grid.
        channels: C, a multiple of 4.
        scale: rows and columns of the grid that was trained with to one of this grid. Positions are counted from 0
            at that grid's first row and column, and lie at the centers of this grid's cells.
    """
    frequencies = _LONGEST ** -(torch.arange(0, channels, 4) / channels)  # C / 4 of them
    rows, columns = (((torch.arange(side) + 0.5) * scale - 0.5)[:, None] * frequencies for side in size_hw)
    angles = torch.stack(
        [columns[None].expand(size_hw[0], -1, -1), rows[:, None].expand(-1, size_hw[1], -1)], dim=2
    )  # [H, W, 2, C / 4]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(2).flatten(0, 1)


def visible_count(patches: int, mask_ratio: float) -> int:
    """How many of an image's patches the encoder sees, at least one."""
    return max(1, math.floor(patches * (1 - mask_ratio)))


def _attend(x: Tensor, qkv: nn.Module, proj: nn.Module, heads: int) -> Tensor:
    query, key, value = (split_heads(part, heads) for part in qkv(x).chunk(3, dim=-1))
    out: Tensor = proj(merge_heads(attend(query, key, value)))
    return out
