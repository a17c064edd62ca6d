"""The mask decoder, with the constructor and signatures of the official code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segany.compat.configs import given_config, only
from segany.compat.errors import require
from segany.compat.segment_anything.modeling.transformer import TwoWayTransformer
from segany.kernels import optimize
from segany.kernels.compute import fast_cpu
from segany.kernels.decoder import FastMaskDecoder
from segany.kernels.shared_image import SharedImage
from segany.models.sam.config import DecoderConfig
from segany.models.sam.mask_decoder import DecodedTokens, MaskUpscaling
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens
from segany.nn import layers


class MLP(layers.MLP):
    """A stack of linear layers with ReLU between them."""

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int, sigmoid_output: bool = False
    ) -> None:
        super().__init__(input_dim, hidden_dim, output_dim, num_layers)
        self.num_layers, self.sigmoid_output = num_layers, sigmoid_output

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers, and a sigmoid if `sigmoid_output` is set."""
        out = super().forward(x)
        return torch.sigmoid(out) if self.sigmoid_output else out


class ByLayer(FastMaskDecoder):
    """Calls the transformer and the upscaling as the official code does where they were replaced, hooked or traced."""

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, Any]:
        if isinstance(image, SharedImage) or (fast_cpu(prompt_tokens) and self._runs_by_prompt()):
            return super().run_transformer(image, prompt_tokens)
        tokens = self.with_output_tokens(prompt_tokens)
        side = int(image.tokens.shape[1] ** 0.5)
        positions = image.positions.expand(1, -1, -1) if image.positions.dim() == 2 else image.positions
        image_map, position_map = (x.transpose(1, 2).unflatten(2, (side, side)) for x in (image.tokens, positions))
        if not isinstance(self.transformer, TwoWayTransformer):  # it may not broadcast
            image_map, position_map = (x.expand(len(tokens), -1, -1, -1) for x in (image_map, position_map))
        found: tuple[Tensor, Tensor] = self.transformer(image_map, position_map, tokens)
        return found

    def all_masks(self, decoded: DecodedTokens, high_res_features: HighResFeatures | None) -> Tensor:
        if isinstance(self.output_upscaling, MaskUpscaling):
            return super().all_masks(decoded, high_res_features)
        side = int(decoded.image.shape[1] ** 0.5)
        upscaled = self.output_upscaling(decoded.image.transpose(1, 2).unflatten(2, (side, side)))
        return (decoded.mask_weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])


class MaskDecoder(ByLayer):
    """Predicts masks from image embeddings and prompt embeddings."""

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
    ) -> None:
        """Build the decoder with random weights around a transformer."""
        only("activation", activation, nn.GELU)
        decoder = DecoderConfig(
            multimask_outputs=num_multimask_outputs, iou_head_depth=iou_head_depth, iou_head_width=iou_head_hidden_dim
        )
        super().__init__(given_config(out_channels=transformer_dim, decoder=decoder))
        self.transformer = transformer  # type: ignore[assignment]
        self.transformer_dim = transformer_dim
        self.num_multimask_outputs = num_multimask_outputs
        self.num_mask_tokens = num_multimask_outputs + 1
        optimize(self)

    def forward(  # type: ignore[override]  # the signature of the official code
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks for P prompts.

        Args:
            image_embeddings: [1, C, h, w], or one for each prompt.
            image_pe: from `PromptEncoder.get_dense_pe`.
            sparse_prompt_embeddings, dense_prompt_embeddings: from `PromptEncoder`.
            multimask_output: predict three masks for each prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M].
        """
        given = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        if type(self).predict_masks is not MaskDecoder.predict_masks:
            masks, iou = self.predict_masks(*given)
            chosen = slice(1, None) if multimask_output else slice(0, 1)
            return masks[:, chosen], iou[:, chosen]
        image = image_tokens(*given)
        decoded = self.transform(image, sparse_prompt_embeddings, multimask=multimask_output)
        return self.all_masks(decoded, None), decoded.iou

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict all masks, the single mask first; arguments are those of `forward`."""
        image = image_tokens(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        tokens, transformed = self.run_transformer(image, sparse_prompt_embeddings)
        iou = self.iou_prediction_head(tokens[:, 0])
        weights = self.mask_weights(tokens[:, 1:], slice(0, self.num_mask_tokens))
        return self.all_masks(DecodedTokens(weights, transformed, iou, tokens), None), iou


def image_tokens(
    image_embeddings: Tensor,
    image_pe: Tensor,
    sparse_prompt_embeddings: Tensor,
    dense_prompt_embeddings: Tensor,
    high_res_features: HighResFeatures | None = None,
) -> ImageTokens:
    """Make the input of the decoder from the tensors that the official decoders take."""
    count = len(sparse_prompt_embeddings)
    require(
        len(image_embeddings) in (1, count),
        f"image_embeddings must be of one image, or one for each of {count} prompts, got {len(image_embeddings)}.",
    )
    dense = dense_prompt_embeddings
    if len(dense) > 1 and dense.stride(0) == 0:  # expanded from one prompt: one image serves all prompts
        dense = dense[:1]
    tokens = (image_embeddings + dense).flatten(2).transpose(1, 2)
    return ImageTokens(tokens.contiguous(), image_pe[0].flatten(1).t(), high_res_features)
