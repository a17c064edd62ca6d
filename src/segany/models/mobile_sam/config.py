"""Config of MobileSAM: a TinyViT image encoder with the prompt encoder and mask decoder of SAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
from segany.models.sam.config import SamConfig

if TYPE_CHECKING:
    from segany.models.image_encoder import ImageEncoder


@register
@dataclass(frozen=True)
class TinyVitConfig(EncoderConfig):
    """The TinyViT-5M image encoder as MobileSAM uses it (TinyViT, table 1; MobileSAM, section 3).

    The first stage is convolutional, the other three attend within windows. The last stage keeps the
    resolution of the third, so that the image embedding has a stride of 16.

    Attributes:
        input_size: side of the square input in pixels, a multiple of 16.
        widths: channels of the four stages.
        depths: blocks of the four stages.
        heads: attention heads of the four stages; unused in the first.
        window_sizes: side of a window in positions in each stage; unused in the first.
        out_channels: channels of the image embedding.
    """

    title: ClassVar[str] = "TinyViT"
    key_rules: ClassVar[KeyRules] = ((r"image_encoder\.(head|norm_head)\..+", None),)
    """The checkpoint of MobileSAM contains a classification head, which is not used."""

    input_size: int = 1024
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_sizes: tuple[int, int, int, int] = (7, 7, 14, 7)
    mlp_ratio: int = 4
    conv_expansion: int = 4
    out_channels: int = 256

    def __post_init__(self) -> None:
        check_input_size(self.input_size, EMBEDDING_STRIDE)
        for width, heads in zip(self.widths, self.heads, strict=True):
            check_heads(width, heads)
        check_window_sizes(*self.window_sizes)
        check_depths(**{f"depths[{stage}]": depth for stage, depth in enumerate(self.depths)})

    def build(self) -> ImageEncoder:
        from segany.models.mobile_sam.tiny_vit import ImageEncoderTinyVit

        return ImageEncoderTinyVit(self)


MOBILE_SAM = SamConfig(TinyVitConfig())
