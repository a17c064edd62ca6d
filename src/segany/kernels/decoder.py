"""CPU forms of the mask decoders.

In a batch of prompts each prompt has its own image tokens, which together exceed the cache. The forms process prompt
tokens as a batch and the image tokens of one prompt at a time. For many prompts on one image, see `shared_image`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, batched_linear, fast_cpu, linear
from segany.kernels.shared_image import SharedImage, TransformedImage, share_image
from segany.models.sam.mask_decoder import DecodedTokens, MaskDecoder, MaskUpscaling, linear_of, rearrange_to_map
from segany.models.sam.two_way_transformer import (
    Attention,
    HighResFeatures,
    ImageTokens,
    TwoWayBlock,
    TwoWayTransformer,
)
from segany.models.sam2.mask_decoder import Sam2MaskDecoder
from segany.nn.layers import LayerNorm2d
from segany.nn.replaced import is_hooked, is_plain, is_unmodified

ImageParts = tuple[Tensor, ...]
"""Image tokens after the transformer, [1, T, C] for each prompt."""


class FastAttention(Attention):
    """Computes batched products with the faster of two kernels; see `batched_linear`."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return batched_linear(x, weight, bias) if fast_cpu(x) else super().product(x, weight, bias)


class FastMaskUpscaling(MaskUpscaling):
    """Upscales chunks of image tokens whose intermediates fit the cache."""

    def masks(self, image_tokens: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None) -> Tensor:
        if not fast_cpu(image_tokens) or not self.has_plain_layers:
            return super().masks(image_tokens, mask_weights, high_res_features)
        return self.masks_of_pieces(self.pieces(image_tokens), mask_weights, high_res_features)

    def pieces(self, image_tokens: Tensor) -> Iterator[Tensor]:
        """Yield `first_rows` of chunks of image tokens [P, T, C]: [P, t, 4, C / 4] each."""
        prompts, _, channels = image_tokens.shape
        together = max(1, CACHE_BUDGET // (prompts * 2 * channels))
        for tokens in image_tokens.split(together, dim=1):
            yield linear(tokens, *linear_of(self[0])).unflatten(-1, (4, -1))

    def masks_of_pieces(
        self, pieces: Iterable[Tensor], mask_weights: Tensor, high_res_features: HighResFeatures | None
    ) -> Tensor:
        """Compute `masks_of_rows` for chunks [P, t, 4, C / 4]: low-res logits [P, M, 4h, 4w]."""
        norm = cast(LayerNorm2d, self[1])
        done, masks = 0, []
        for first in pieces:
            piece = slice(done, done + first.shape[1])
            done += first.shape[1]
            rows = first if high_res_features is None else first + high_res_features.stride8[:, piece]
            finer = linear(F.gelu(norm.over_last_axis(rows)), *linear_of(self[3])).unflatten(-1, (4, -1))
            if high_res_features is not None:
                finer += high_res_features.stride4[:, piece]
            masks.append(batched_linear(F.gelu(finer).flatten(1, 3), mask_weights))  # [P, t * 16, M]
        return rearrange_to_map(torch.cat(masks, dim=1))


class _FastDecoder(MaskDecoder):
    """Base class of the forms of both mask decoders."""

    def prepare(self, image: ImageTokens) -> ImageTokens:
        """Precompute the products with image tokens [1, T, C]. The cost equals the saving of three prompts."""
        if not fast_cpu(image.tokens) or image.tokens.dtype != torch.float32 or not self._has_plain_layers():
            return image
        return share_image(self, image)

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, Any]:
        if isinstance(image, SharedImage):
            return image.transform(self.with_output_tokens(prompt_tokens))
        if not fast_cpu(prompt_tokens) or not self._runs_by_prompt():
            return super().run_transformer(image, prompt_tokens)
        return transform_by_prompt(self.transformer, self.with_output_tokens(prompt_tokens), image)

    def _runs_by_prompt(self) -> bool:
        """Tell whether the blocks are called in parts for each prompt: not if they are replaced or hooked."""
        transformer, upscaling = self.transformer, self.output_upscaling
        if not isinstance(transformer, TwoWayTransformer) or not isinstance(upscaling, FastMaskUpscaling):
            return False
        parts = (transformer, *transformer.layers)
        own = all(isinstance(part, (TwoWayTransformer, TwoWayBlock)) and not is_hooked(part) for part in parts)
        return own and upscaling.has_plain_layers

    def _has_plain_layers(self) -> bool:
        """Tell whether all layers are those of the constructor, without hooks."""
        transformer = self.transformer
        if not is_unmodified(transformer) or not self._runs_by_prompt():
            return False
        attentions = [transformer.final_attn_token_to_image]
        for block in transformer.blocks():
            attentions += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
        norms = [block.norm4 for block in transformer.blocks()]
        return is_plain(*norms) and all(attention.has_plain_layers for attention in attentions)

    def all_masks(self, decoded: DecodedTokens, high_res_features: HighResFeatures | None) -> Tensor:
        if isinstance(decoded.image, Tensor):
            return super().all_masks(decoded, high_res_features)
        weights = decoded.mask_weights.split(1)
        rows = self._rows_by_prompt(decoded.image)
        features = features_by_prompt(high_res_features, len(weights))
        upscale = cast(FastMaskUpscaling, self.output_upscaling).masks_of_pieces
        return torch.cat([upscale(*one) for one in zip(rows, weights, features, strict=True)])

    def selected_masks(
        self, decoded: DecodedTokens, high_res_features: HighResFeatures | None, selected: Tensor
    ) -> Iterator[Tensor]:
        if isinstance(decoded.image, Tensor):
            yield from super().selected_masks(decoded, high_res_features, selected)
            return
        features = features_by_prompt(high_res_features, len(selected))
        upscale = cast(FastMaskUpscaling, self.output_upscaling).masks_of_pieces
        each = zip(self._rows_by_prompt(decoded.image), decoded.mask_weights, features, selected, strict=True)
        for rows, weights, some_features, chosen in each:
            if chosen.any():
                yield upscale(rows, weights[chosen][None], some_features)[0]

    def _rows_by_prompt(self, image: ImageParts | TransformedImage) -> Iterator[Iterator[Tensor]]:
        if isinstance(image, TransformedImage):
            return image.rows_by_prompt()
        upscaling = cast(FastMaskUpscaling, self.output_upscaling)
        return (upscaling.pieces(part) for part in image)


class FastMaskDecoder(_FastDecoder, MaskDecoder):
    """CPU form of the mask decoder of SAM."""


class FastSam2MaskDecoder(_FastDecoder, Sam2MaskDecoder):
    """CPU form of the mask decoder of SAM 2."""


def features_by_prompt(features: HighResFeatures | None, count: int) -> Iterator[HighResFeatures | None]:
    """Yield the high-resolution features of each of `count` prompts, shared or one row for each prompt."""
    for index in range(count):
        if features is None or len(features.stride8) == 1:
            yield features
        else:
            yield HighResFeatures(*(part[index : index + 1] for part in features))


def transform_by_prompt(
    transformer: TwoWayTransformer, prompt_tokens: Tensor, image: ImageTokens
) -> tuple[Tensor, ImageParts]:
    """Compute `TwoWayTransformer.forward` with the image tokens of one prompt at a time.

    Returns:
        Tokens [P, n, C], and P image tokens [1, T, C].
    """
    tokens, parts, positions = prompt_tokens, image.tokens.split(1), image.positions
    for block in transformer.blocks():
        tokens = block.attend_to_prompt(tokens, prompt_tokens)
        attended = _attend_by_prompt(block.cross_attn_token_to_image, tokens + prompt_tokens, parts, positions)
        tokens = block.norm2(tokens + attended)
        tokens = block.norm3(tokens + block.mlp(tokens))
        each = parts if len(parts) > 1 else parts[0].expand(len(tokens), -1, -1).split(1)
        pairs = zip(each, (tokens + prompt_tokens).split(1), tokens.split(1), strict=True)
        parts = tuple(block.update_image(part, positions, keys, values) for part, keys, values in pairs)
    last = transformer.final_attn_token_to_image
    attended = _attend_by_prompt(last, tokens + prompt_tokens, parts, positions)
    return transformer.norm_final_attn(tokens + attended), parts


def _attend_by_prompt(attention: Attention, tokens: Tensor, parts: Sequence[Tensor], positions: Tensor) -> Tensor:
    """Compute `Attention.tokens_to_image` for shared image tokens, or for those of each prompt: [P, n, C]."""
    if len(parts) == 1:
        return attention.tokens_to_image(tokens, parts[0], positions)
    pairs = zip(tokens.split(1), parts, strict=True)
    return torch.cat([attention.tokens_to_image(token, part, positions) for token, part in pairs])


FORMS: tuple[type[nn.Module], ...] = (FastAttention, FastMaskUpscaling, FastMaskDecoder, FastSam2MaskDecoder)
