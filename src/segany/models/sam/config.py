"""Configs of the SAM family (Segment Anything, sections 3 and A)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from segany.core.errors import check
from segany.core.preprocessing import Preprocessing
from segany.models.configs import (
    EMBEDDING_STRIDE,
    EncoderConfig,
    KeyRules,
    check_depths,
    check_heads,
    check_input_size,
    check_window_sizes,
    register,
)
from segany.models.sam import keys

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder

Value = TypeVar("Value")


@register
@dataclass(frozen=True)
class VitConfig(EncoderConfig):
    """The plain ViT image encoder with windowed attention (ViTDet; SAM, section A).

    Attributes:
        input_size: side of the square input in pixels, a multiple of 16.
        width: channels of the blocks.
        depth: number of blocks.
        heads: attention heads of a block.
        global_blocks: indices of the blocks with global attention; the others have window attention.
        window_size: side of a window in positions.
        out_channels: channels of the image embedding.
    """

    title: ClassVar[str] = "ViT"
    has_drop_path: ClassVar[bool] = True
    encodes_patches: ClassVar[bool] = True
    key_rules: ClassVar[KeyRules] = keys.VIT_RULES

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    input_size: int = 1024
    window_size: int = 14
    mlp_ratio: int = 4
    out_channels: int = 256

    def __post_init__(self) -> None:
        check_input_size(self.input_size, EMBEDDING_STRIDE)
        check_heads(self.width, self.heads)
        check_depths(depth=self.depth)
        check_window_sizes(self.window_size)
        check(
            all(0 <= block < self.depth for block in self.global_blocks),
            f"global_blocks {self.global_blocks} must lie in 0..{self.depth - 1}.",
        )

    def build(self) -> ImageEncoder:
        from segany.models.sam.vit import ImageEncoderVit

        return ImageEncoderVit(self)


@register
@dataclass(frozen=True)
class DecoderConfig:
    """The two-way-transformer mask decoder (SAM, section A).

    Attributes:
        numbered_mlps: whether checkpoints number the layers of the MLPs in the blocks (SAM 2) or name them (SAM).
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
        check_heads(self.cross_attention_width, self.heads)
        check_depths(depth=self.depth, iou_head_depth=self.iou_head_depth, multimask_outputs=self.multimask_outputs)


@register
@dataclass(frozen=True)
class SamConfig:
    """Config of a promptable model: image encoder, prompt encoder, mask decoder and preprocessing.

    Attributes:
        encoder: config of the image encoder.
        decoder: config of the mask decoder.
        mask_channels: hidden channels of the mask downscaling in the prompt encoder (`mask_in_chans`).
        resize: resize mode of images; see `Preprocessing`.
        mean_rgb, std_rgb: mean and standard deviation for normalization, in units of 0..255.
    """

    encoder_strides: ClassVar[tuple[int, ...]] = (EMBEDDING_STRIDE,)
    """Strides of the feature maps that the family requires of an encoder."""

    encoder: EncoderConfig
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask_channels: int = 16
    resize: Literal["longest_side", "square"] = "longest_side"
    mean_rgb: tuple[float, float, float] = Preprocessing.mean_rgb
    std_rgb: tuple[float, float, float] = Preprocessing.std_rgb

    def __post_init__(self) -> None:
        ours, theirs = self.encoder_strides, self.encoder.strides
        check(
            theirs[: len(ours)] == ours,
            f"{type(self).__name__} takes maps of strides {ours}, and {type(self.encoder).__name__} has {theirs}.",
        )
        channels = self.mask_channels
        check(channels > 0 and channels % 4 == 0, f"mask_channels must be a multiple of 4, got {channels}.")
        check_heads(self.encoder.out_channels, self.decoder.heads)
        _ = self.preprocessing  # checks its values

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
        return Preprocessing(self.input_size, self.resize, self.mean_rgb, self.std_rgb)

    def build(self, name: str) -> Any:
        """Build the `PromptableModel` with random weights; `registry.build_model` has the precise return type."""
        from segany.models.sam.model import Sam

        return Sam(self, name)

    def rename_keys(self, raw: Mapping[str, Value]) -> dict[str, Value]:
        """Rename the keys of a checkpoint of any known format to official keys. Unknown keys are unchanged."""
        return keys.rename_sam(raw, self.encoder.key_rules)


SAM_VIT_B = SamConfig(VitConfig(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)))
SAM_VIT_L = SamConfig(VitConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)))
SAM_VIT_H = SamConfig(VitConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)))
