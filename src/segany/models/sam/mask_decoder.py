"""Prompt tokens and image embedding to masks and their predicted IoU (SAM, section A, "Mask decoder")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam.config import SamConfig
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens, TwoWayTransformer
from segany.nn.layers import MLP, LayerNorm2d


class DecodedTokens(NamedTuple):
    """What the transformer makes of P prompts.

    Attributes:
        mask_weights: [P, M, C / 8], the weights that turn upscaled image tokens into masks.
        image: the image tokens [P, T, C], or what a form of the decoder for some machine has instead.
        iou: [P, M], predicted IoU.
        tokens: [P, n, C], the decoder's own tokens and the prompt's.
    """

    mask_weights: Tensor
    image: Any
    iou: Tensor
    tokens: Tensor


class AllCandidates(NamedTuple):
    """All masks of P prompts: the single one, then the three of an ambiguous prompt.

    Attributes:
        low_res: logits [P, 4, 4h, 4w].
        iou: [P, 4], predicted IoU.
        tokens: [P, n, C], the decoder's own tokens and the prompt's.
    """

    low_res: Tensor
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
        self.output_upscaling = MaskUpscaling(width)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(width, width, width // 8, 3) for _ in range(self.mask_tokens_count)
        )
        self.iou_prediction_head = MLP(width, decoder.iou_head_width, self.mask_tokens_count, decoder.iou_head_depth)

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
        return self.all_masks(decoded, image.high_res_features), decoded.iou

    def prepare(self, image: ImageTokens) -> ImageTokens:
        """An image that will be decoded with many prompts; a place for forms of the decoder to share work."""
        return image

    def transform(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> DecodedTokens:
        """The first half: everything but the masks, at about the same cost as they have."""
        return self.read_tokens(*self.run_transformer(image, prompt_tokens), multimask=multimask)

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, Any]:
        """The output tokens before those of the prompts, [P, n, C], and the image [P, T, C], after the transformer."""
        tokens: tuple[Tensor, Tensor] = self.transformer(self.with_output_tokens(prompt_tokens), image)
        return tokens

    def with_output_tokens(self, prompt_tokens: Tensor) -> Tensor:
        """[P, N, C] behind the output tokens."""
        output_tokens = self.output_tokens().expand(prompt_tokens.shape[0], -1, -1)
        return torch.cat([output_tokens, prompt_tokens], dim=1)

    def read_tokens(self, tokens: Tensor, image: Any, *, multimask: bool) -> DecodedTokens:
        """What the tokens say that the transformer ends with, [P, n, C]."""
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])[:, chosen]
        return DecodedTokens(self.mask_weights(tokens[:, 1:], chosen), image, iou, tokens)

    def all_candidates(self, image: ImageTokens, prompt_tokens: Tensor) -> AllCandidates:
        """Every mask there is for P prompts, M = 4: the single one first, then the three.

        For export: what is computed depends neither on how many prompts there are nor on any value.
        """
        tokens, image_tokens = self.run_transformer(image, prompt_tokens)
        iou = self.iou_prediction_head(tokens[:, 0])
        weights = self.mask_weights(tokens[:, 1:], slice(0, self.mask_tokens_count))
        return AllCandidates(self.output_upscaling.masks(image_tokens, weights, image.high_res_features), iou, tokens)

    def output_tokens(self) -> Tensor:
        """What is learned and the same for all prompts, [n, C]."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def mask_weights(self, mask_tokens: Tensor, chosen: slice) -> Tensor:
        """[P, M, C / 8] from the mask tokens [P, n, C], of which the first are those of the masks in order."""
        mlps = list(enumerate(self.output_hypernetworks_mlps))[chosen]
        return torch.stack([mlp(mask_tokens[:, index]) for index, mlp in mlps], dim=1)

    def all_masks(self, decoded: DecodedTokens, high_res_features: HighResFeatures | None) -> Tensor:
        """The second half: low-res logits [P, M, 4h, 4w]."""
        return self.output_upscaling.masks(decoded.image, decoded.mask_weights, high_res_features)

    def wanted_masks(
        self, decoded: DecodedTokens, high_res_features: HighResFeatures | None, wanted: Tensor
    ) -> Iterator[Tensor]:
        """The second half for some of the masks, bool [P, M]: low-res logits [K, 4h, 4w] of some prompts in turn."""
        prompts = wanted.any(dim=1)
        if prompts.any():
            weights = decoded.mask_weights[prompts]
            yield self.output_upscaling.masks(decoded.image[prompts], weights, high_res_features)[wanted[prompts]]


class MaskUpscaling(nn.Sequential):
    """Image tokens to masks at four times their resolution.

    The two transposed convolutions never overlap: each is a linear layer from one position to the
    2 x 2 below it. So all runs on rows of channels, and only the finished masks are put in order.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )

    def masks(self, image_tokens: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None) -> Tensor:
        """Masks of a square image.

        Args:
            image_tokens: [P, T, C], T = h * w.
            mask_weights: [P, M, C / 8], from the hypernetworks.
            high_res_features: added to what each of the two convolutions returns (SAM 2, section 4).

        Returns:
            Low-res logits [P, M, 4h, 4w].
        """
        return self.masks_of_rows(self.first_rows(image_tokens), mask_weights, high_res_features)

    def first_rows(self, image_tokens: Tensor) -> Tensor:
        """The first transposed convolution: [P, T, C] to [P, T, 4, C / 4], 2 x 2 in reading order."""
        return F.linear(image_tokens, *linear_of(self[0])).unflatten(-1, (4, -1))

    def masks_of_rows(self, rows: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None) -> Tensor:
        """What follows `first_rows`."""
        norm = cast(LayerNorm2d, self[1])
        if high_res_features is not None:
            rows = rows + high_res_features.stride8
        finer = F.linear(F.gelu(norm.over_last_axis(rows)), *linear_of(self[3])).unflatten(-1, (4, -1))
        if high_res_features is not None:
            finer += high_res_features.stride4
        return in_reading_order(F.gelu(finer).flatten(1, 3) @ mask_weights.transpose(1, 2))


def linear_of(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [4 * C', C] and bias [4 * C'] of the linear layer that a transposed convolution of size 2 is."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)  # weight: [C, C', 2, 2]
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)


def in_reading_order(masks: Tensor) -> Tensor:
    """Masks [P, T * 16, M], 2 x 2 of 2 x 2 pixels a token, to [P, M, 4h, 4w]."""
    count = masks.shape[2]
    side = int((masks.shape[1] // 16) ** 0.5)
    # Rows are h, two rows in each, two in each of those; columns alike.
    masks = masks.reshape(-1, side, side, 2, 2, 2, 2, count)
    return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, count, 4 * side, 4 * side)


def arrange_high_res(stride4: Tensor, stride8: Tensor) -> HighResFeatures:
    """High-resolution features of one image in the order of its tokens.

    Args:
        stride4: [C / 8, 4h, 4w].
        stride8: [C / 4, 2h, 2w].
    """
    height, width = stride8.shape[1] // 2, stride8.shape[2] // 2
    stride4 = stride4.reshape(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    stride8 = stride8.reshape(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0)
    return HighResFeatures(
        stride8.flatten(2, 3).flatten(0, 1)[None], stride4.flatten(4, 5).flatten(2, 3).flatten(0, 1)[None]
    )
