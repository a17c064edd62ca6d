"""Prompt tokens and image embedding to masks and their predicted IoU (SAM, section A, "Mask decoder")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, batched_linear, fast_cpu, linear
from segany.models.sam.config import SamConfig
from segany.models.sam.shared_image import FinishedImage, SharedImage
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens, TwoWayTransformer
from segany.nn.layers import MLP, LayerNorm2d


class DecodedTokens(NamedTuple):
    """What the transformer makes of P prompts.

    Attributes:
        mask_weights: [P, M, C / 8], the weights that turn upscaled image tokens into masks.
        image: the image tokens, one [P, T, C], or P times [1, T, C], or a `SharedImage`'s.
        iou: [P, M], predicted IoU.
        tokens: [P, n, C], the decoder's own tokens and the prompt's.
    """

    mask_weights: Tensor
    image: tuple[Tensor, ...] | FinishedImage
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
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
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
        return self.all_masks(decoded, image.detail), decoded.iou

    def all_candidates(self, image: ImageTokens, prompt_tokens: Tensor) -> AllCandidates:
        """Every mask there is for P prompts, M = 4: the single one first, then the three.

        For export: what is computed depends neither on how many prompts there are nor on any value.
        """
        tokens, (part,) = cast(tuple[Tensor, tuple[Tensor]], self.run_transformer(image, prompt_tokens))
        iou = self.iou_prediction_head(tokens[:, 0])
        return AllCandidates(self._every_mask(part, tokens[:, 1:], image.detail), iou, tokens)

    def _every_mask(self, part: Tensor, mask_tokens: Tensor, detail: HighResFeatures | None) -> Tensor:
        weights = self.mask_weights(mask_tokens, slice(0, self.mask_tokens_count))
        return upscale_and_project(self.output_upscaling, first_rows(self.output_upscaling, part), weights, detail)

    def prepare(self, image: ImageTokens) -> SharedImage:
        """An image [1, T, C] for many prompts, on a CPU. It costs as much as three prompts save."""
        return SharedImage(self.transformer, image, *_as_linear(self.output_upscaling[0]))

    def transform(self, image: ImageTokens | SharedImage, prompt_tokens: Tensor, *, multimask: bool) -> DecodedTokens:
        """The first half: everything but the masks, at about the same cost as they have."""
        return self.read_tokens(*self.run_transformer(image, prompt_tokens), multimask=multimask)

    def read_tokens(
        self, tokens: Tensor, image: tuple[Tensor, ...] | FinishedImage, *, multimask: bool
    ) -> DecodedTokens:
        """What the tokens say that the transformer ends with, [P, n, C]."""
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])[:, chosen]
        return DecodedTokens(self.mask_weights(tokens[:, 1:], chosen), image, iou, tokens)

    def run_transformer(
        self, image: ImageTokens | SharedImage, prompt_tokens: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...] | FinishedImage]:
        """The decoder's own tokens before those of the prompts, [P, n, C], and the image, after the transformer."""
        own = self.output_tokens().expand(prompt_tokens.shape[0], -1, -1)
        tokens = torch.cat([own, prompt_tokens], dim=1)
        if isinstance(image, SharedImage):
            return image.transform(tokens)
        updated, parts = self.transformer(tokens, image)
        return updated, parts

    def output_tokens(self) -> Tensor:
        """What is learned and the same for all prompts, [n, C]."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def mask_weights(self, mask_tokens: Tensor, chosen: slice) -> Tensor:
        """[P, M, C / 8] from the mask tokens [P, n, C], of which the first are those of the masks in order."""
        mlps = list(enumerate(self.output_hypernetworks_mlps))[chosen]
        return torch.stack([mlp(mask_tokens[:, index]) for index, mlp in mlps], dim=1)

    def all_masks(self, decoded: DecodedTokens, detail: HighResFeatures | None) -> Tensor:
        """The second half: low-res logits [P, M, 4h, 4w]."""
        layers = self.output_upscaling
        pairs = self._by_part(decoded)
        return torch.cat([upscale_and_project(layers, rows, weights, detail) for rows, weights in pairs])

    def wanted_masks(self, decoded: DecodedTokens, detail: HighResFeatures | None, wanted: Tensor) -> Iterator[Tensor]:
        """The second half for some of the masks, bool [P, M]: low-res logits [K, 4h, 4w] of some prompts in turn."""
        layers = self.output_upscaling
        if isinstance(decoded.image, FinishedImage):
            for prompt, (weights, chosen) in enumerate(zip(decoded.mask_weights, wanted, strict=True)):
                if chosen.any():
                    yield upscale_and_project(layers, decoded.image.rows(prompt), weights[chosen][None], detail)[0]
            return
        together = len(wanted) // len(decoded.image)
        parts = zip(decoded.image, decoded.mask_weights.split(together), wanted.split(together), strict=True)
        for part, weights, chosen in parts:
            prompts = chosen.any(dim=1)
            if prompts.any():
                rows = first_rows(layers, part[prompts])
                yield upscale_and_project(layers, rows, weights[prompts], detail)[chosen[prompts]]

    def _by_part(self, decoded: DecodedTokens) -> Iterator[tuple[Iterator[Tensor], Tensor]]:
        """Rows for `upscale_and_project`, and the weights of the masks that are to be made of them."""
        image, weights = decoded.image, decoded.mask_weights
        if isinstance(image, FinishedImage):
            yield from ((image.rows(prompt), some) for prompt, some in enumerate(weights.split(1)))
        else:
            some_weights = weights.split(len(weights) // len(image))
            yield from zip((first_rows(self.output_upscaling, part) for part in image), some_weights, strict=True)


def first_rows(layers: nn.Sequential, image_tokens: Tensor) -> Iterator[Tensor]:
    """The first transposed convolution of `upscale_and_project`, of some of the tokens [P, T, C] after the other."""
    prompts, count, channels = image_tokens.shape
    together = max(1, CACHE_BUDGET // (prompts * 2 * channels)) if fast_cpu(image_tokens) else count
    for tokens in image_tokens.split(together, dim=1):
        yield _two_by_two(tokens, layers[0])


def upscale_and_project(
    layers: nn.Sequential, rows: Iterable[Tensor], mask_weights: Tensor, detail: HighResFeatures | None = None
) -> Tensor:
    """Image tokens to masks at four times their resolution.

    The two transposed convolutions never overlap: each is a linear layer from one position to the
    2 x 2 below it. So all runs on rows of channels, and only the finished masks are put in order.

    Args:
        layers: transposed convolution, norm, GELU, transposed convolution, GELU.
        rows: what the first of them makes of a square image of T tokens, in pieces [P, t, 4, C / 4].
        mask_weights: [P, M, C / 8], from the hypernetworks.
        detail: added to what each of the two convolutions returns (SAM 2, section 4).

    Returns:
        [P, M, 4h, 4w].
    """
    norm = cast(LayerNorm2d, layers[1])
    pieces: list[Tensor] = []
    done = 0
    for first in rows:
        piece = slice(done, done + first.shape[1])
        done += first.shape[1]
        half = first if detail is None else first + detail.half[:, piece]
        quarter = _two_by_two(F.gelu(norm.over_last_axis(half)), layers[3])  # [P, t, 4, 4, C / 8]
        if detail is not None:
            quarter += detail.quarter[:, piece]
        pieces.append(batched_linear(F.gelu(quarter).flatten(1, 3), mask_weights))  # [P, t * 16, M]
    masks = torch.cat(pieces, dim=1)
    count = masks.shape[2]
    side = int((masks.shape[1] // 16) ** 0.5)
    # Rows are h, two rows in each, two in each of those; columns alike.
    masks = masks.reshape(-1, side, side, 2, 2, 2, 2, count)
    return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, count, 4 * side, 4 * side)


def arrange_detail(fine: Tensor, half: Tensor) -> HighResFeatures:
    """High-resolution features in the order of the image's tokens.

    Args:
        fine: [C / 8, 4h, 4w].
        half: [C / 4, 2h, 2w].
    """
    height, width = half.shape[1] // 2, half.shape[2] // 2
    fine = fine.reshape(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    half = half.reshape(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0)
    return HighResFeatures(half.flatten(2, 3).flatten(0, 1)[None], fine.flatten(4, 5).flatten(2, 3).flatten(0, 1)[None])


def _two_by_two(x: Tensor, conv: nn.Module) -> Tensor:
    """A transposed convolution of size and stride 2 on rows: [..., C] to [..., 4, C'], 2 x 2 in reading order."""
    return linear(x, *_as_linear(conv)).unflatten(-1, (4, -1))


def _as_linear(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [4 * C', C] and bias [4 * C'] of the linear layer that a transposed convolution of size 2 is."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)  # weight: [C, C', 2, 2]
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)
