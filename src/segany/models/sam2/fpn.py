"""The neck of SAM 2's image encoder: all stages brought to the same channels (FPN; SAM 2, section D.1)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn

from segany.kernels.compute import fast_cpu, linear
from segany.models.sam2.config import HieraConfig
from segany.models.sam2.hiera import Hiera


class FeaturePyramid(nn.Module):
    """Maps of four strides to the image embedding, and what a decoder can use of the finer two."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(  # the coarsest first
            nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, config.out_channels, 1)))
            for channels in reversed(config.stage_widths)
        )

    def image_embedding(self, stride16: Tensor, stride32: Tensor) -> Tensor:
        """The two coarse maps [B, h, w, C] to the image embedding [B, h, w, 256], of stride 16."""
        coarse = pointwise(stride32, self._conv(0))
        repeated = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return pointwise(stride16, self._conv(1)) + repeated

    def detail(self, stride4: Tensor, stride8: Tensor, convs: tuple[nn.Conv2d, nn.Conv2d]) -> tuple[Tensor, Tensor]:
        """The two fine maps [B, H, W, C], through the neck and a convolution of the mask decoder's each."""
        fine = pointwise(stride4, self._conv(3), convs[0])
        return fine, pointwise(stride8, self._conv(2), convs[1])

    def _conv(self, index: int) -> nn.Conv2d:
        return cast(Any, self.convs[index]).conv


def pointwise(x: Tensor, *convs: nn.Conv2d) -> Tensor:
    """1x1 convolutions one after the other, channels last: [..., C] to [..., C'].

    Without an activation between them they are one linear layer, as which they run on a CPU.
    """
    layers = [(conv.weight.flatten(1), cast(Tensor, conv.bias)) for conv in convs]
    if fast_cpu(x):
        while len(layers) > 1:
            (weight1, bias1), (weight2, bias2) = layers[:2]
            layers[:2] = [(weight2 @ weight1, weight2 @ bias1 + bias2)]
    for weight, bias in layers:
        x = linear(x, weight, bias)
    return x


class ImageEncoder(nn.Module):
    """The trunk and its neck."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FeaturePyramid(config)

    def forward(
        self, pixels: Tensor, convs: tuple[nn.Conv2d, nn.Conv2d], drop_path_scales: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode pixels.

        Args:
            pixels: [B, 3, S, S], normalized.
            convs: the mask decoder's 1x1 convolutions for strides 4 and 8.
            drop_path_scales: [depth, 2, B], for `drop_path_residual`.

        Returns:
            The image embedding [B, C, S / 16, S / 16], and the detail [B, C / 8, S / 4, S / 4] and
            [B, C / 4, S / 8, S / 8].
        """
        stride4, stride8, stride16, stride32 = self.trunk(pixels, drop_path_scales)
        fine, half = self.neck.detail(stride4, stride8, convs)
        image = self.neck.image_embedding(stride16, stride32)
        return image.permute(0, 3, 1, 2), fine.permute(0, 3, 1, 2), half.permute(0, 3, 1, 2)
