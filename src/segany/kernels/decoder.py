"""Forms of the mask decoder, for prompts that share an image.

A batch of images in the decoder, one a prompt, is too large for the cache. So the tokens of all prompts run together,
and the image of one prompt after the other; or one image for all, see `shared_image`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, batched_linear, fast_cpu, linear
from segany.kernels.shared_image import FinishedImage, SharedImage, share_image
from segany.models.sam.mask_decoder import DecodedTokens, MaskDecoder, MaskUpscaling, in_reading_order, linear_of
from segany.models.sam.two_way_transformer import Attention, HighResFeatures, ImageTokens, TwoWayTransformer
from segany.models.sam2.mask_decoder import Sam2MaskDecoder
from segany.nn.layers import LayerNorm2d

ImageParts = tuple[Tensor, ...]
"""Image tokens after the transformer, [1, T, C] a prompt."""


class FastAttention(Attention):
    """Products with weights of a prompt's own, by the faster of two kernels."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return batched_linear(x, weight, bias) if fast_cpu(x) else super().product(x, weight, bias)


class FastMaskUpscaling(MaskUpscaling):
    """Some tokens at a time."""

    def masks(self, image_tokens: Tensor, mask_weights: Tensor, high_res_features: HighResFeatures | None) -> Tensor:
        if not fast_cpu(image_tokens):
            return super().masks(image_tokens, mask_weights, high_res_features)
        return self.masks_of_pieces(self.pieces(image_tokens), mask_weights, high_res_features)

    def pieces(self, image_tokens: Tensor) -> Iterator[Tensor]:
        """`first_rows` of some of the tokens [P, T, C] after the other."""
        prompts, _, channels = image_tokens.shape
        together = max(1, CACHE_BUDGET // (prompts * 2 * channels))
        for tokens in image_tokens.split(together, dim=1):
            yield linear(tokens, *linear_of(self[0])).unflatten(-1, (4, -1))

    def masks_of_pieces(
        self, pieces: Iterable[Tensor], mask_weights: Tensor, high_res_features: HighResFeatures | None
    ) -> Tensor:
        """`masks_of_rows` for rows in pieces [P, t, 4, C / 4]."""
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
        return in_reading_order(torch.cat(masks, dim=1))


class _FastDecoder(MaskDecoder):
    """What the decoders of both families have in common."""

    def prepare(self, image: ImageTokens) -> ImageTokens:
        """An image [1, T, C] multiplied once for all prompts. It costs as much as three prompts save."""
        if not fast_cpu(image.tokens) or image.tokens.dtype != torch.float32:
            return image
        return share_image(self, image)

    def run_transformer(self, image: ImageTokens, prompt_tokens: Tensor) -> tuple[Tensor, Any]:
        if isinstance(image, SharedImage):
            return image.transform(self.with_output_tokens(prompt_tokens))
        if not fast_cpu(prompt_tokens):
            return super().run_transformer(image, prompt_tokens)
        return transform_by_prompt(self.transformer, self.with_output_tokens(prompt_tokens), image)

    def all_masks(self, decoded: DecodedTokens, high_res_features: HighResFeatures | None) -> Tensor:
        if isinstance(decoded.image, Tensor):
            return super().all_masks(decoded, high_res_features)
        weights = decoded.mask_weights.split(1)
        rows = self._rows_by_prompt(decoded.image)
        features = features_by_prompt(high_res_features, len(weights))
        upscale = cast(FastMaskUpscaling, self.output_upscaling).masks_of_pieces
        return torch.cat([upscale(*one) for one in zip(rows, weights, features, strict=True)])

    def wanted_masks(
        self, decoded: DecodedTokens, high_res_features: HighResFeatures | None, wanted: Tensor
    ) -> Iterator[Tensor]:
        if isinstance(decoded.image, Tensor):
            yield from super().wanted_masks(decoded, high_res_features, wanted)
            return
        features = features_by_prompt(high_res_features, len(wanted))
        upscale = cast(FastMaskUpscaling, self.output_upscaling).masks_of_pieces
        each = zip(self._rows_by_prompt(decoded.image), decoded.mask_weights, features, wanted, strict=True)
        for rows, weights, some_features, chosen in each:
            if chosen.any():
                yield upscale(rows, weights[chosen][None], some_features)[0]

    def _rows_by_prompt(self, image: ImageParts | FinishedImage) -> Iterator[Iterator[Tensor]]:
        if isinstance(image, FinishedImage):
            return image.rows_by_prompt()
        upscaling = cast(FastMaskUpscaling, self.output_upscaling)
        return (upscaling.pieces(part) for part in image)


class FastMaskDecoder(_FastDecoder, MaskDecoder):
    """The decoder of SAM."""


class FastSam2MaskDecoder(_FastDecoder, Sam2MaskDecoder):
    """The decoder of SAM 2."""


def features_by_prompt(features: HighResFeatures | None, count: int) -> Iterator[HighResFeatures | None]:
    """The high-resolution features of one prompt after the other: all the same, or a row of them each."""
    for index in range(count):
        if features is None or len(features.stride8) == 1:
            yield features
        else:
            yield HighResFeatures(*(part[index : index + 1] for part in features))


def transform_by_prompt(
    transformer: TwoWayTransformer, prompt_tokens: Tensor, image: ImageTokens
) -> tuple[Tensor, ImageParts]:
    """`TwoWayTransformer.forward` with the image of one prompt after the other: [P, n, C], and P times [1, T, C]."""
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
    """`Attention.tokens_to_image` for an image that all share, or one a prompt."""
    if len(parts) == 1:
        return attention.tokens_to_image(tokens, parts[0], positions)
    pairs = zip(tokens.split(1), parts, strict=True)
    return torch.cat([attention.tokens_to_image(token, part, positions) for token, part in pairs])


FORMS: tuple[type[nn.Module], ...] = (FastAttention, FastMaskUpscaling, FastMaskDecoder, FastSam2MaskDecoder)
