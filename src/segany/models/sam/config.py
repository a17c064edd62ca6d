"""Architecture of the SAM family as values (Segment Anything, sections 3 and A)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from segany.core.errors import check
from segany.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from segany.models.mobile_sam.config import TinyVitConfig
    from segany.models.sam2.config import HieraConfig

EMBEDDING_STRIDE = 16
"""Pixels of the input per position of the image embedding."""

EncoderConfig: TypeAlias = "VitConfig | TinyVitConfig | HieraConfig"


@dataclass(frozen=True)
class VitConfig:
    """The plain ViT image encoder with windowed attention (ViTDet; SAM, section A).

    Attributes:
        input_size: side of the square input in pixels, a multiple of 16.
        width: channels of the blocks.
        depth: number of blocks.
        heads: attention heads of a block.
        global_blocks: the blocks that attend over the whole image; the others attend within windows.
        window_size: side of a window in positions.
        out_channels: channels of the image embedding.
    """

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    input_size: int = 1024
    window_size: int = 14
    mlp_ratio: int = 4
    out_channels: int = 256

    def __post_init__(self) -> None:
        check(
            self.input_size > 0 and self.input_size % EMBEDDING_STRIDE == 0,
            f"input_size must be a positive multiple of {EMBEDDING_STRIDE}, got {self.input_size}.",
        )
        check(self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}.")
        check(self.window_size > 0, f"window_size must be positive, got {self.window_size}.")
        check(
            all(0 <= block < self.depth for block in self.global_blocks),
            f"global_blocks {self.global_blocks} must lie in 0..{self.depth - 1}.",
        )


@dataclass(frozen=True)
class DecoderConfig:
    """The two-way-transformer mask decoder (SAM, section A).

    Attributes:
        numbered_mlps: whether checkpoints number the layers of the blocks' MLPs (SAM 2) or name them (SAM).
    """

    depth: int = 2
    heads: int = 8
    mlp_width: int = 2048
    multimask_outputs: int = 3
    iou_head_width: int = 256
    iou_head_depth: int = 3
    cross_attention_width: int = 128
    numbered_mlps: bool = False

    def __post_init__(self) -> None:
        check(self.depth > 0 and self.multimask_outputs > 0, "depth and multimask_outputs must be positive.")


@dataclass(frozen=True)
class SamConfig:
    """A whole promptable model: its image encoder, its decoder, its preprocessing."""

    encoder: EncoderConfig
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask_channels: int = 16

    @property
    def input_size(self) -> int:
        return self.encoder.input_size

    @property
    def embedding_size(self) -> int:
        """Side of the image embedding in positions."""
        return self.input_size // EMBEDDING_STRIDE

    @property
    def low_res_size(self) -> int:
        """Side of the low-res logits in pixels."""
        return 4 * self.embedding_size

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(input_size=self.input_size)


SAM_VIT_B = SamConfig(VitConfig(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)))
SAM_VIT_L = SamConfig(VitConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)))
SAM_VIT_H = SamConfig(VitConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)))
