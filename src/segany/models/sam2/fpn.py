"""The FPN neck of SAM 2's image encoder, and the encoder of trunk and neck (SAM 2, section D.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from segany.models.image_encoder import ImageEncoder
from segany.models.sam2.config import HieraConfig
from segany.models.sam2.hiera import Hiera
from segany.nn.layers import pointwise


class FeaturePyramid(nn.Module):
    """The FPN neck: projects the feature maps of the four stages and merges the two coarsest."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(  # the coarsest first
            nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, config.out_channels, 1)))
            for channels in reversed(config.stage_widths)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Convert maps [B, H, W, C] of strides 4, 8, 16 and 32 to maps of strides 16, 4 and 8, channels last."""
        stride4, stride8, stride16, stride32 = maps
        return self.image_embedding(stride16, stride32), self.project(stride4, 3), self.project(stride8, 2)

    def image_embedding(self, stride16: Tensor, stride32: Tensor) -> Tensor:
        """Merge the maps of strides 16 and 32, channels last, to the image embedding [B, h, w, 256] of stride 16."""
        repeated = self.project(stride32, 0).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return self.project(stride16, 1) + repeated

    def project(self, x: Tensor, index: int) -> Tensor:
        """Project a map [B, H, W, C] with its 1x1 convolution."""
        return pointwise(x, self.conv(index))

    def conv(self, index: int) -> nn.Conv2d:
        """Return the convolution of a map; index 0 is the coarsest map."""
        return cast(nn.Conv2d, cast(Any, self.convs[index]).conv)


class ImageEncoderHiera(ImageEncoder):
    """The image encoder: Hiera trunk and FPN neck."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FeaturePyramid(config)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        return list(self.trunk.blocks)

    def layer_depths(self) -> dict[str, int]:
        """As the base class; the position embeddings have no depth, since SAM 2's training leaves them out."""
        return {name: depth for name, depth in super().layer_depths().items() if "pos_embed" not in name}

    def forward(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode pixels.

        Args:
            pixels: [B, 3, S, S], normalized.
            drop_path_scales: [depth, 2, B], for drop path.

        Returns:
            The image embedding [B, C, S / 16, S / 16], and maps [B, C, S / 4, S / 4] and [B, C, S / 8, S / 8].
        """
        image, stride4, stride8 = (x.permute(0, 3, 1, 2) for x in self.neck(self.trunk(pixels, drop_path_scales)))
        return image, stride4, stride8
