"""Masked autoencoding (He et al., Masked Autoencoders Are Scalable Vision Learners, 2022) of SAM's ViT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import SizeHW
from segany.core.errors import check, check_numbers
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.image_encoder import ImageEncoder
from segany.nn.attention import attend, merge_heads, split_heads
from segany.nn.layers import FeedForward

PATCH_VALUES = 3 * EMBEDDING_STRIDE**2
"""Number of values of a patch: its pixels, channel by channel."""

_LONGEST = 10000.0
"""Ratio of the longest to the shortest wavelength of the sine position embeddings."""


@dataclass(frozen=True)
class MaeConfig:
    """Configuration of masking and of the decoder (MAE, sections 3 and A.1).

    Attributes:
        mask_ratio: share of the patches that are masked.
        decoder_depth: number of blocks of the decoder.
        decoder_width: number of channels of the decoder.
        decoder_heads: number of attention heads of the decoder.
        mlp_ratio: ratio of hidden channels to `decoder_width` in the decoder's MLPs.
        normalize: whether the target of a patch is normalized by the mean and standard deviation of its pixels.
        weight_decay: weight decay of everything except biases and norms.
        positions: position embedding of the encoder: "sine" replaces it by sines and cosines, as in MAE; "kept" keeps
            that of a trained model. It is frozen.
        seed: random seed of the decoder's initial weights.
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
        check_numbers(self)
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
    """A transformer block on tokens [B, T, C]."""

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
    """SAM's ViT as the encoder of the visible patches of an image, and a decoder that reconstructs the masked ones.

    The pre-trained network is a plain ViT: all blocks have global attention over the visible patches, with absolute
    position embeddings only, because scattered patches form no windows. Window attention and relative position
    embeddings are added afterwards, as in ViTDet (Li et al., Exploring Plain Vision Transformer Backbones, 2022,
    section 3): relative position embeddings start from zero, the neck from its initial weights, and `load_encoder`
    takes over all other weights. There is no class token, because SAM's ViT has none (MAE, section A.1, finds that it
    is not needed).

    Args:
        encoder: the image encoder, which is trained in place.
        config: configuration of masking and of the decoder.
        grid: side of the training images, in patches; by default that of the encoder's input. For a smaller grid, the
            encoder's position embedding is resized to the grid. The authors resize it in the same way when they
            fine-tune on images larger than those of pre-training.

    Raises:
        ConfigError: the encoder's width is not a multiple of 4, which sine positions need, or the grid is too large.
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

    def position_embeddings(self, size_hw: SizeHW) -> Tensor:
        """Position embeddings [H * W, C] of the patches of an image, which lies at the top left of the grid."""
        height, width = size_hw
        table = self.encoder.patch_positions.detach()
        if self.grid == table.shape[1]:
            return table[0, :height, :width].flatten(0, 1)
        if self.config.positions == "sine":
            return sine_positions(size_hw, table.shape[-1]).to(table)
        resized = F.interpolate(table.permute(0, 3, 1, 2), (self.grid, self.grid), mode="bicubic")
        return resized[0, :, :height, :width].flatten(1).T

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained: all except the frozen position embedding and parts that MAE does not use."""
        unused = {id(x) for x in self.encoder.parameters()} - {id(x) for x in self.encoder.patch_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in unused]

    def forward(self, patches: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """Predict all patches of images from the visible ones.

        Args:
            patches: [B, T, 768], T = H * W, normalized pixels; see `cut_patches`.
            size_hw: H, W in patches, at most those of the grid. The patches lie at its top left.
            visible: int64 [B, V], indices of the visible patches.

        Returns:
            [B, T, 768]. With `config.normalize`, normalized by the mean and standard deviation of each patch.
        """
        seen = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
        tokens = self.encode(seen, size_hw, visible)
        return self.decode(tokens, size_hw, visible)

    def encode(self, patches: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """Encode the visible patches [B, V, 768] to tokens [B, V, C]."""
        positions = self.position_embeddings(size_hw)
        x = self.encoder.encode_patches(patches, positions[visible])
        tokens: Tensor = self.norm(x)
        return tokens

    def decode(self, tokens: Tensor, size_hw: SizeHW, visible: Tensor) -> Tensor:
        """Decode tokens of the visible patches [B, V, C] to all patches [B, T, 768]."""
        x = self.put_in_place(self.decoder_embed(tokens), size_hw[0] * size_hw[1], visible)
        x = x + sine_positions(size_hw, x.shape[-1]).to(x)
        for block in self.decoder_blocks:
            x = block(x)
        told: Tensor = self.predict(self.decoder_norm(x))
        return told

    def put_in_place(self, tokens: Tensor, count: int, visible: Tensor) -> Tensor:
        """Scatter tokens [B, V, C] to their positions among `count` positions, [B, T, C], and fill in mask tokens."""
        masked = self.mask_token.to(tokens.dtype).expand(len(tokens), count, -1)
        return masked.scatter(1, visible[..., None].expand(-1, -1, tokens.shape[-1]), tokens)


def cut_patches(pixels: Tensor) -> Tensor:
    """Cut pixels [B, 3, H * 16, W * 16] into patches [B, H * W, 768], row by row."""
    patches = pixels.unfold(2, EMBEDDING_STRIDE, EMBEDDING_STRIDE).unfold(3, EMBEDDING_STRIDE, EMBEDDING_STRIDE)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # from [B, 3, H, W, 16, 16]


def join_patches(patches: Tensor, size_hw: SizeHW) -> Tensor:
    """The inverse of `cut_patches`: patches [B, H * W, 768] to pixels [B, 3, H * 16, W * 16]."""
    side = EMBEDDING_STRIDE
    grid = patches.reshape(len(patches), *size_hw, 3, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of the patches [B, T, 768]: [B, T, 1] each."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def reconstruction_loss(predicted: Tensor, patches: Tensor, visible: Tensor, *, normalize: bool) -> Tensor:
    """Mean squared error over the masked patches (MAE, section 3).

    Args:
        predicted: [B, T, 768], predicted patches.
        patches: [B, T, 768], target patches.
        visible: int64 [B, V], indices of the visible patches.
        normalize: whether predictions are normalized by the mean and standard deviation of each patch.

    Returns:
        [B], float32; zero where no patch is masked.
    """
    patches, predicted = patches.float(), predicted.float()
    if normalize:
        mean, deviation = patch_statistics(patches)
        patches = (patches - mean) / deviation
    masked = torch.ones_like(patches[..., 0]).scatter(1, visible, 0.0)  # [B, T]
    of_patches = (predicted - patches).square().mean(-1)
    return (of_patches * masked).sum(1) / masked.sum(1).clamp(min=1)


def sine_positions(size_hw: SizeHW, channels: int, scale: float = 1.0) -> Tensor:
    """Sine-cosine position embeddings of a grid, [H * W, C] (MAE, section A.1).

    The first half of the channels is for the column, the second for the row.

    Args:
        size_hw: H, W of the grid.
        channels: C, a multiple of 4.
        scale: ratio of the side of the grid of training to that of this grid. Positions are those of the centers of
            this grid's cells, in the coordinates of the grid of training.
    """
    frequencies = _LONGEST ** -(torch.arange(0, channels, 4) / channels)  # C / 4 of them
    rows, columns = (((torch.arange(side) + 0.5) * scale - 0.5)[:, None] * frequencies for side in size_hw)
    angles = torch.stack(
        [columns[None].expand(size_hw[0], -1, -1), rows[:, None].expand(-1, size_hw[1], -1)], dim=2
    )  # [H, W, 2, C / 4]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(2).flatten(0, 1)


def visible_count(patches: int, mask_ratio: float) -> int:
    """Number of visible patches of an image, at least one."""
    return max(1, math.floor(patches * (1 - mask_ratio)))


def _attend(x: Tensor, qkv: nn.Module, proj: nn.Module, heads: int) -> Tensor:
    query, key, value = (split_heads(part, heads) for part in qkv(x).chunk(3, dim=-1))
    out: Tensor = proj(merge_heads(attend(query, key, value)))
    return out
