"""The mask decoder: two-way transformer, mask upscaling, hypernetwork MLPs and IoU head (SAM, section A)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam.config import SamConfig
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens, TwoWayTransformer
from segany.nn.layers import MLP, LayerNorm2d
from segany.nn.replaced import is_plain, is_unmodified


class DecodedTokens(NamedTuple):
    """The outputs of the two-way transformer and the heads for P prompts, before mask upscaling.

    Attributes:
        mask_weights: [P, M, C / 8], outputs of the hypernetwork MLPs.
        image: the image tokens [P, T, C], or another representation of them in an optimized decoder.
        iou: [P, M], predicted IoU.
        tokens: [P, n, C], the output tokens followed by the prompt tokens.
    """

    mask_weights: Tensor
    image: Any
    iou: Tensor
    tokens: Tensor


class AllCandidates(NamedTuple):
    """All four masks of P prompts: the single mask, then the three multimask outputs.

    Attributes:
        low_res: mask logits [P, 4, 4h, 4w].
        iou: [P, 4], predicted IoU.
        tokens: [P, n, C], the output tokens followed by the prompt tokens.
    """

    low_res: Tensor
    iou: Tensor
    tokens: Tensor


class MaskDecoder(nn.Module):
    """Predicts one mask, or three masks for an ambiguous prompt, from image and prompt embeddings."""

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
        """Decode P prompts on one image.

        Args:
            image: image tokens with the dense prompt embedding added.
            prompt_tokens: sparse prompt embeddings [P, N, C].
            multimask: predict three candidates per prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M], M = 3 or 1.
        """
        decoded = self.transform(image, prompt_tokens, multimask=multimask)
        return self.all_masks(decoded, image.high_res_features), decoded.iou

    def prepare(self, image: ImageTokens) -> ImageTokens:
        """Precompute what many prompts on an image share. Optimized decoders override it; here it does nothing."""
        return image

    def transform(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> DecodedTokens:
        """Run the first half: the transformer, the hypernetwork MLPs and the IoU head, but not the mask upscaling.

        It has about the same cost as the second half.
        """
        return self.read_tokens(*self.run_transformer(image, prompt_tokens), multimask=multimask)

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, Any]:
        """Run the two-way transformer: returns output and prompt tokens [P, n, C] and image tokens [P, T, C]."""
        tokens: tuple[Tensor, Tensor] = self.transformer(self.with_output_tokens(prompt_tokens), image)
        return tokens

    def with_output_tokens(self, prompt_tokens: Tensor) -> Tensor:
        """Prepend the output tokens to the prompt tokens [P, N, C]: [P, n, C]."""
        output_tokens = self.output_tokens().expand(prompt_tokens.shape[0], -1, -1)
        return torch.cat([output_tokens, prompt_tokens], dim=1)

    def read_tokens(self, tokens: Tensor, image: Any, *, multimask: bool) -> DecodedTokens:
        """Apply the IoU head and the hypernetwork MLPs to the tokens [P, n, C] after the transformer."""
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])[:, chosen]
        return DecodedTokens(self.mask_weights(tokens[:, 1:], chosen), image, iou, tokens)

    def all_candidates(self, image: ImageTokens, prompt_tokens: Tensor) -> AllCandidates:
        """Predict all four masks for P prompts: the single mask first, then the three multimask outputs.

        For export: the graph depends neither on the number of prompts nor on values.
        """
        tokens, image_tokens = self.run_transformer(image, prompt_tokens)
        iou = self.iou_prediction_head(tokens[:, 0])
        weights = self.mask_weights(tokens[:, 1:], slice(0, self.mask_tokens_count))
        return AllCandidates(self.output_upscaling.masks(image_tokens, weights, image.high_res_features), iou, tokens)

    def output_tokens(self) -> Tensor:
        """Return the learned output tokens [n, C]: the IoU token, then the mask tokens."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def mask_weights(self, mask_tokens: Tensor, chosen: slice) -> Tensor:
        """Apply the hypernetwork MLPs of the chosen masks to their mask tokens: [P, n, C] to [P, M, C / 8]."""
        mlps = list(enumerate(self.output_hypernetworks_mlps))[chosen]
        return torch.stack([mlp(mask_tokens[:, index]) for index, mlp in mlps], dim=1)

    def all_masks(self, decoded: DecodedTokens, high_res_features: HighResFeatures | None) -> Tensor:
        """Run the second half, the mask upscaling: low-res logits [P, M, 4h, 4w]."""
        return self.output_upscaling.masks(decoded.image, decoded.mask_weights, high_res_features)

    def selected_masks(
        self, decoded: DecodedTokens, high_res_features: HighResFeatures | None, selected: Tensor
    ) -> Iterator[Tensor]:
        """Run the second half for a selection of masks only.

        Args:
            decoded: from `transform`.
            high_res_features: of the image.
            selected: bool [P, M], the masks to predict.

        Yields:
            Low-res logits [K, 4h, 4w] of one or several prompts, in the order of `selected`.
        """
        prompts = selected.any(dim=1)
        if prompts.any():
            weights = decoded.mask_weights[prompts]
            yield self.output_upscaling.masks(decoded.image[prompts], weights, high_res_features)[selected[prompts]]


class MaskUpscaling(nn.Sequential):
    """Upscales image tokens by a factor of four and multiplies them with the hypernetwork outputs.

    The two transposed convolutions have kernel size and stride 2, so each is a linear layer from one position to 2 x 2
    positions. All layers therefore run on rows of channels, and only the final masks are rearranged to maps. Replaced
    and hooked layers run on maps.
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
        """Predict masks of a square image.

        Args:
            image_tokens: [P, T, C], T = h * w.
            mask_weights: [P, M, C / 8], from the hypernetwork MLPs.
            high_res_features: added to the outputs of the two transposed convolutions (SAM 2, section 4).

        Returns:
            Low-res logits [P, M, 4h, 4w].
        """
        if not self.has_plain_layers:
            return self._masks_by_layer(image_tokens, mask_weights, high_res_features)
        return self.masks_of_rows(self.first_rows(image_tokens), mask_weights, high_res_features)

    @property
    def has_plain_layers(self) -> bool:
        """Whether the layers are those of the constructor, without hooks."""
        exact = all(cast(nn.GELU, layer).approximate == "none" for layer in (self[2], self[4]))
        return is_plain(self[0], self[3]) and is_unmodified(self) and exact

    def _masks_by_layer(
        self, image_tokens: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None
    ) -> Tensor:
        """Compute `masks` by calling the layers in their order, on maps [P, C, h, w]."""
        side = int(image_tokens.shape[1] ** 0.5)
        x = image_tokens.transpose(1, 2).unflatten(2, (side, side))
        if high_res_features is None:
            x = self(x)
        else:
            stride8 = high_res_features.stride8.unflatten(1, (side, side)).unflatten(3, (2, 2))
            stride8 = stride8.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
            first, norm, activation, second, last_activation = self
            x = second(activation(norm(first(x) + stride8)))
            x = last_activation(x + rearrange_to_map(high_res_features.stride4.flatten(1, 3)))
        return (mask_weights @ x.flatten(2)).unflatten(2, x.shape[2:])

    def first_rows(self, image_tokens: Tensor) -> Tensor:
        """Apply the first transposed convolution: [P, T, C] to [P, T, 4, C / 4], 2 x 2 in row-major order."""
        return F.linear(image_tokens, *linear_of(self[0])).unflatten(-1, (4, -1))

    def masks_of_rows(self, rows: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None) -> Tensor:
        """Apply the layers after `first_rows`: [P, T, 4, C / 4] to low-res logits [P, M, 4h, 4w]."""
        norm = cast(LayerNorm2d, self[1])
        if high_res_features is not None:
            rows = rows + high_res_features.stride8
        finer = F.linear(F.gelu(norm.over_last_axis(rows)), *linear_of(self[3])).unflatten(-1, (4, -1))
        if high_res_features is not None:
            finer += high_res_features.stride4
        return rearrange_to_map(F.gelu(finer).flatten(1, 3) @ mask_weights.transpose(1, 2))


def linear_of(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Convert a transposed convolution with kernel size and stride 2 to a linear layer.

    Returns:
        Weight [4 * C', C] and bias [4 * C'].
    """
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)  # weight: [C, C', 2, 2]
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)


def rearrange_to_map(masks: Tensor) -> Tensor:
    """Rearrange masks [P, T * 16, M], with 2 x 2 blocks of 2 x 2 pixels per token, to maps [P, M, 4h, 4w]."""
    count = masks.shape[2]
    side = int((masks.shape[1] // 16) ** 0.5)
    # A row of the map is indexed by the token's row and the rows of the two 2 x 2 blocks; a column likewise.
    masks = masks.reshape(-1, side, side, 2, 2, 2, 2, count)
    return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, count, 4 * side, 4 * side)


def arrange_high_res(stride4: Tensor, stride8: Tensor) -> HighResFeatures:
    """Rearrange the high-resolution features of one image to the order of its tokens.

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
