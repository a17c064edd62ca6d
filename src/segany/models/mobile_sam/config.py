"""Architecture of MobileSAM as values: SAM's prompt encoder and decoder behind a TinyViT encoder."""

from __future__ import annotations

from dataclasses import dataclass

from segany.core.errors import check
from segany.models.sam.config import EMBEDDING_STRIDE, SamConfig


@dataclass(frozen=True)
class TinyVitConfig:
    """The TinyViT-5M image encoder as MobileSAM uses it (TinyViT, table 1; MobileSAM, section 3).

    The first stage is convolutional, the other three attend within windows. The last stage keeps the
    resolution of the third, so that the image embedding has a stride of 16.

    Attributes:
        input_size: side of the square input in pixels, a multiple of 16.
        widths: channels of the four stages.
        depths: blocks of the four stages.
        heads: attention heads of the four stages; the first has none to use.
        window_sizes: side of a window in positions in each stage; the first has none to use.
        out_channels: channels of the image embedding.
    """

    input_size: int = 1024
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_sizes: tuple[int, int, int, int] = (7, 7, 14, 7)
    mlp_ratio: int = 4
    conv_expansion: int = 4
    out_channels: int = 256

    def __post_init__(self) -> None:
        check(
            self.input_size > 0 and self.input_size % EMBEDDING_STRIDE == 0,
            f"input_size must be a positive multiple of {EMBEDDING_STRIDE}, got {self.input_size}.",
        )
        for width, heads in zip(self.widths, self.heads, strict=True):
            check(width % heads == 0, f"width {width} must be a multiple of heads {heads}.")


MOBILE_SAM = SamConfig(TinyVitConfig())
