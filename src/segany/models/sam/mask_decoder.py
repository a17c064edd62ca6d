"""Prompt tokens and image embedding to masks and their predicted IoU (SAM, section A, "Mask decoder")."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam.config import SamConfig
from segany.models.sam.two_way_transformer import Detail, ImageTokens, TwoWayTransformer
from segany.nn.layers import LayerNorm2d, Perceptron
from segany.ops.compute import CACHE_BUDGET, batched_linear, fast_cpu, linear
from segany.types import SizeHW


class DecodedTokens(NamedTuple):
    """What the transformer makes of P prompts.

    Attributes:
        mask_weights: [P, M, C / 8], the weights that turn upscaled image tokens into masks.
        parts: the image tokens, one [P, T, C] or P times [1, T, C].
        iou: [P, M], predicted IoU.
        tokens: [P, n, C], the decoder's own tokens and the prompt's.
    """

    mask_weights: Tensor
    parts: tuple[Tensor, ...]
    iou: Tensor
    tokens: Tensor


class MaskDecoder(nn.Module):
    """Predicts one mask for a clear prompt and three for an ambiguous one."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width, decoder = config.encoder.out_channels, config.decoder
        self.mask_tokens_count = decoder.multimask_outputs + 1
        self.transformer = TwoWayTransformer(decoder, width)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(self.mask_tokens_count, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(width, width, width // 8, 3) for _ in range(self.mask_tokens_count)
        )
        self.iou_prediction_head = Perceptron(
            width, decoder.iou_head_width, self.mask_tokens_count, decoder.iou_head_depth
        )

    def forward(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """Decode P prompts against one image.

        Args:
            image: tokens with the dense prompt embedding added.
            prompt_tokens: [P, N, C].
            multimask: three candidates a prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M], M = 3 or 1.
        """
        decoded = self.transform(image, prompt_tokens, multimask=multimask)
        return self.all_masks(decoded, image.detail), decoded.iou

    def transform(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> DecodedTokens:
        """The first half: everything but the masks, at about the same cost as they have."""
        tokens, parts = self.run_transformer(image, prompt_tokens)
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])[:, chosen]
        return DecodedTokens(self.mask_weights(tokens[:, 1:], chosen), parts, iou, tokens)

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The decoder's own tokens before those of the prompts, [P, n, C], and the image, after the transformer."""
        own = self.own_tokens().expand(len(prompt_tokens), -1, -1)
        tokens, parts = self.transformer(torch.cat([own, prompt_tokens], dim=1), image)
        return tokens, parts

    def own_tokens(self) -> Tensor:
        """What is learned and the same for all prompts, [n, C]."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def mask_weights(self, mask_tokens: Tensor, chosen: slice) -> Tensor:
        """[P, M, C / 8] from the mask tokens [P, n, C], of which the first are those of the masks in order."""
        mlps = list(enumerate(self.output_hypernetworks_mlps))[chosen]
        return torch.stack([mlp(mask_tokens[:, index]) for index, mlp in mlps], dim=1)

    def all_masks(self, decoded: DecodedTokens, detail: Detail | None) -> Tensor:
        """The second half: low-res logits [P, M, 4h, 4w]."""
        together = len(decoded.mask_weights) // len(decoded.parts)
        pairs = zip(decoded.mask_weights.split(together), decoded.parts, strict=True)
        return torch.cat([self.masks(weights, part, detail) for weights, part in pairs])

    def masks(self, mask_weights: Tensor, image_tokens: Tensor, detail: Detail | None = None) -> Tensor:
        """The second half for one part of what `transform` returns, [P, M, 4h, 4w]."""
        side = int(image_tokens.shape[1] ** 0.5)
        return upscale_and_project(self.output_upscaling, image_tokens, mask_weights, (side, side), detail)


def upscale_and_project(
    layers: nn.Sequential,
    image_tokens: Tensor,
    mask_weights: Tensor,
    size_hw: SizeHW,
    detail: Detail | None = None,
) -> Tensor:
    """Image tokens to masks at four times their resolution.

    The two transposed convolutions never overlap: each is a linear layer from one position to the
    2 x 2 below it. So all runs on rows of channels, and only the finished masks are put in order.

    Args:
        layers: transposed convolution, norm, GELU, transposed convolution, GELU.
        image_tokens: [P, h * w, C].
        mask_weights: [P, M, C / 8], from the hypernetworks.
        size_hw: h, w.
        detail: added to what each of the two convolutions returns (SAM 2, section 4).

    Returns:
        [P, M, 4h, 4w].
    """
    height, width = size_hw
    conv1, norm, conv2 = (cast(Any, layers[index]) for index in (0, 1, 3))

    def project(piece: slice) -> Tensor:
        x = _two_by_two(image_tokens[:, piece], conv1)  # [P, t, 4, C / 4]
        if detail is not None:
            x += detail.half[:, piece]
        x = _two_by_two(F.gelu(norm.over_last_axis(x)), conv2)  # [P, t, 4, 4, C / 8]
        if detail is not None:
            x += detail.quarter[:, piece]
        return batched_linear(F.gelu(x).flatten(1, 3), mask_weights)  # [P, t * 16, M]

    prompts, count, channels = image_tokens.shape
    together = max(1, CACHE_BUDGET // (prompts * 2 * channels)) if fast_cpu(image_tokens) else height * width
    pieces = [project(slice(first, first + together)) for first in range(0, count, together)]
    masks = torch.cat(pieces, dim=1)  # [P, T * 16, M]
    # Rows are h, two rows in each, two in each of those; columns alike.
    masks = masks.reshape(-1, height, width, 2, 2, 2, 2, mask_weights.shape[1])
    return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, mask_weights.shape[1], 4 * height, 4 * width)


def arrange_detail(fine: Tensor, half: Tensor) -> Detail:
    """High-resolution features in the order of the image's tokens.

    Args:
        fine: [C / 8, 4h, 4w].
        half: [C / 4, 2h, 2w].
    """
    height, width = half.shape[1] // 2, half.shape[2] // 2
    fine = fine.reshape(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    half = half.reshape(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0)
    return Detail(half.flatten(2, 3).flatten(0, 1)[None], fine.flatten(4, 5).flatten(2, 3).flatten(0, 1)[None])


def _two_by_two(x: Tensor, conv: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of size and stride 2 on rows: [..., C] to [..., 4, C'], 2 x 2 in reading order."""
    weight, bias = conv.weight, cast(Tensor, conv.bias)  # weight: [C, C', 2, 2]
    rows = linear(x, weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4))
    return rows.unflatten(-1, (4, -1))
