"""Configs of SAM 2 and 2.1 (SAM 2, sections 4 and D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segany.core.errors import check
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
from segany.models.sam.config import DecoderConfig, SamConfig
from segany.models.sam2 import keys

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder

PATCH_STRIDE = 4
"""Stride of the first stage in pixels of the input; each further stage doubles it."""

STAGES = 4


@register
@dataclass(frozen=True)
class HieraConfig(EncoderConfig):
    """The hierarchical image encoder (Hiera; SAM 2, section D.1). Widths and heads double at each stage.

    Attributes:
        width: channels of the first stage.
        heads: attention heads of the first stage.
        depths: blocks of the four stages.
        global_blocks: indices of the blocks with global attention; the others have window attention.
        window_sizes: side of a window in positions in each stage. The first block of a stage, which halves the
            resolution, has the window size of the previous stage.
        position_size: side of the global position embedding, which is interpolated to the size of the feature map.
        input_size: side of the square input in pixels.
        out_channels: channels of the image embedding.
    """

    title: ClassVar[str] = "Hiera"
    strides: ClassVar[tuple[int, ...]] = (EMBEDDING_STRIDE, 4, 8)
    has_drop_path: ClassVar[bool] = True
    key_rules: ClassVar[KeyRules] = keys.HIERA_RULES

    width: int
    heads: int
    depths: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)
    position_size: int = 7
    input_size: int = 1024
    mlp_ratio: int = 4
    out_channels: int = 256

    def __post_init__(self) -> None:
        check_input_size(self.input_size, PATCH_STRIDE * max(2 ** (STAGES - 1), self.window_sizes[0]))
        check_heads(self.width, self.heads)
        check_depths(**{f"depths[{stage}]": depth for stage, depth in enumerate(self.depths)})
        check_window_sizes(*self.window_sizes)
        check(
            all(size % 2 == 0 for size in self.window_sizes[:-1]),
            f"Windows that are halved must be even, got {self.window_sizes}.",
        )
        check(
            all(0 <= block < sum(self.depths) for block in self.global_blocks),
            f"global_blocks {self.global_blocks} must lie in 0..{sum(self.depths) - 1}.",
        )

    def build(self) -> ImageEncoder:
        from segany.models.sam2.fpn import ImageEncoderHiera

        return ImageEncoderHiera(self)

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """Index of the first block of each stage."""
        return (0, *accumulate(self.depths[:-1]))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(STAGES))


@register
@dataclass(frozen=True)
class Sam2DecoderConfig(DecoderConfig):
    """The mask decoder of SAM 2.

    Attributes:
        stability_delta: offset of the mask threshold for the stability score of the single mask
            (`dynamic_multimask_stability_delta`).
        stability_thresh: if the stability score of the single mask is lower, the best of the three multimask outputs
            replaces it (`dynamic_multimask_stability_thresh`); None never replaces it.
    """

    numbered_mlps: bool = True
    stability_delta: float = 0.05
    stability_thresh: float | None = 0.98


@register
@dataclass(frozen=True)
class MemoryConfig:
    """The memory bank of SAM 2 and its memory attention (SAM 2, section 4). Official names are in parentheses.

    Attributes:
        num_maskmem: temporal positions of memories: one for conditioning frames, the others for the frames
            just before the current one.
        channels: channels of a memory (`mem_dim`).
        depth: layers of memory attention.
        mlp_width: channels inside the MLPs of those layers.
        max_cond_frames: conditioning frames that a frame attends to at most, the closest ones; None for all
            (`max_cond_frames_in_attn`).
        max_obj_ptrs: object pointers that a frame attends to (`max_obj_ptrs_in_encoder`).
        temporal_stride: frames between two tracked frames in the memory, except between the current frame and
            the one just before it (`memory_temporal_stride_for_eval`).
        obj_ptr_tpos: whether object pointers have a temporal position encoding (2.1;
            `add_tpos_enc_to_obj_ptrs`).
        occlusion_embedding: whether memories of frames without the object have an embedding added (2.1;
            `no_obj_embed_spatial`).
        mask_scale, mask_bias: applied to mask probabilities before the memory encoder
            (`sigmoid_scale_for_mem_enc`, `sigmoid_bias_for_mem_enc`).
    """

    num_maskmem: int = 7
    channels: int = 64
    depth: int = 4
    mlp_width: int = 2048
    max_cond_frames: int | None = None
    max_obj_ptrs: int = 16
    temporal_stride: int = 1
    obj_ptr_tpos: bool = True
    occlusion_embedding: bool = True
    mask_scale: float = 20.0
    mask_bias: float = -10.0

    def __post_init__(self) -> None:
        check_depths(depth=self.depth)
        for name in ("channels", "num_maskmem", "max_obj_ptrs", "temporal_stride"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}.")
        most = self.max_cond_frames
        check(most is None or most >= 2, f"max_cond_frames must be at least 2, got {most}.")


@register
@dataclass(frozen=True)
class Sam2Config(SamConfig):
    """Config of SAM 2: a promptable model with memory for video."""

    encoder_strides: ClassVar[tuple[int, ...]] = (EMBEDDING_STRIDE, 4, 8)

    decoder: Sam2DecoderConfig = field(default_factory=Sam2DecoderConfig)
    resize: Literal["longest_side", "square"] = "square"
    memory: MemoryConfig = field(default_factory=MemoryConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        channels, memory = self.encoder.out_channels, self.memory.channels
        check(channels % memory == 0, f"Memory channels {memory} must divide those of the image, {channels}.")

    def build(self, name: str) -> Any:
        from segany.models.sam2.model import Sam2

        return Sam2(self, name)

    def rename_keys(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return keys.rename_sam2(raw, self.encoder.key_rules)


HIERA_TINY = HieraConfig(width=96, heads=1, depths=(1, 2, 7, 2), global_blocks=(5, 7, 9))
HIERA_SMALL = HieraConfig(width=96, heads=1, depths=(1, 2, 11, 2), global_blocks=(7, 10, 13))
HIERA_BASE_PLUS = HieraConfig(width=112, heads=2, depths=(2, 3, 16, 3), global_blocks=(12, 16, 20), position_size=14)
HIERA_LARGE = HieraConfig(
    width=144, heads=2, depths=(2, 6, 36, 4), global_blocks=(23, 33, 43), window_sizes=(8, 4, 16, 8)
)

MEMORY_2 = MemoryConfig(obj_ptr_tpos=False, occlusion_embedding=False)
MEMORY_2_1 = MemoryConfig()
