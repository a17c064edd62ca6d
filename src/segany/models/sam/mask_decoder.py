"""Prompt tokens and image embedding to masks and their predicted IoU (SAM, section A, "Mask decoder")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.models.sam.config import SamConfig
from segany.models.sam.shared_image import FinishedImage, SharedImage
from segany.models.sam.two_way_transformer import ImageTokens, TwoWayTransformer
from segany.nn.layers import LayerNorm2d, Perceptron
from segany.ops.compute import CACHE_BUDGET, batched_linear, fast_cpu, linear


class DecodedTokens(NamedTuple):
    """What the transformer makes of P prompts.

    Attributes:
        mask_weights: [P, M, C / 8], the weights that turn upscaled image tokens into masks.
        image: the image tokens, one [P, T, C], or P times [1, T, C], or a `SharedImage`'s.
        iou: [P, M], predicted IoU.
    """

    mask_weights: Tensor
    image: tuple[Tensor, ...] | FinishedImage
    iou: Tensor


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
        return torch.cat(list(self.masks(decoded))).unflatten(0, decoded.iou.shape), decoded.iou

    def prepare(self, image: ImageTokens) -> SharedImage:
        """An image [1, T, C] for many prompts, on a CPU. It costs as much as three prompts save."""
        return SharedImage(self.transformer, image, *_as_linear(self.output_upscaling[0]))

    def transform(self, image: ImageTokens | SharedImage, prompt_tokens: Tensor, *, multimask: bool) -> DecodedTokens:
        """The first half: everything but the masks, at about the same cost as they have."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(prompt_tokens), -1, -1)
        tokens = torch.cat([own, prompt_tokens], dim=1)
        finished: tuple[Tensor, ...] | FinishedImage
        if isinstance(image, SharedImage):
            tokens, finished = image.transform(tokens)
        else:
            tokens, finished = self.transformer(tokens, image)
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])[:, chosen]
        weights = [mlp(tokens[:, 1 + index]) for index, mlp in list(enumerate(self.output_hypernetworks_mlps))[chosen]]
        return DecodedTokens(torch.stack(weights, dim=1), finished, iou)

    def masks(self, decoded: DecodedTokens, wanted: Tensor | None = None) -> Iterator[Tensor]:
        """The second half: low-res logits [K, 4h, 4w] of some prompts after the other.

        Args:
            decoded: what `transform` returned.
            wanted: bool [P, M], which masks to make; all without it.
        """
        if wanted is None:
            wanted = torch.ones_like(decoded.iou, dtype=torch.bool)
        if isinstance(decoded.image, FinishedImage):
            for prompt, (weights, rows) in enumerate(zip(decoded.mask_weights, wanted, strict=True)):
                if rows.any():
                    yield upscale_and_project(self.output_upscaling, decoded.image.rows(prompt), weights[rows][None])[0]
            return
        together = len(wanted) // len(decoded.image)
        for part, weights, rows in zip(
            decoded.image, decoded.mask_weights.split(together), wanted.split(together), strict=True
        ):
            prompts = rows.any(dim=1)
            if prompts.any():
                first = first_rows(self.output_upscaling, part[prompts])
                yield upscale_and_project(self.output_upscaling, first, weights[prompts])[rows[prompts]]


def first_rows(layers: nn.Sequential, image_tokens: Tensor) -> Iterator[Tensor]:
    """The first transposed convolution of `upscale_and_project`, of some of the tokens [P, T, C] after the other."""
    prompts, count, channels = image_tokens.shape
    together = max(1, CACHE_BUDGET // (prompts * 2 * channels)) if fast_cpu(image_tokens) else count
    for tokens in image_tokens.split(together, dim=1):
        yield _two_by_two(tokens, layers[0])


def upscale_and_project(layers: nn.Sequential, rows: Iterable[Tensor], mask_weights: Tensor) -> Tensor:
    """Image tokens to masks at four times their resolution.

    The two transposed convolutions never overlap: each is a linear layer from one position to the
    2 x 2 below it. So all runs on rows of channels, and only the finished masks are put in order.

    Args:
        layers: transposed convolution, norm, GELU, transposed convolution, GELU.
        rows: what the first of them makes of a square image of T tokens, in pieces [P, t, 4, C / 4].
        mask_weights: [P, M, C / 8], from the hypernetworks.

    Returns:
        [P, M, 4h, 4w].
    """
    norm = cast(LayerNorm2d, layers[1])
    pieces = []
    for piece in rows:
        x = F.gelu(norm.over_last_axis(piece))
        x = F.gelu(_two_by_two(x, layers[3]))  # [P, t, 4, 4, C / 8]
        pieces.append(batched_linear(x.flatten(1, 3), mask_weights))  # [P, t * 16, M]
    masks = torch.cat(pieces, dim=1)
    count = masks.shape[2]
    side = int((masks.shape[1] // 16) ** 0.5)
    # Rows are h, two rows in each, two in each of those; columns alike.
    masks = masks.reshape(-1, side, side, 2, 2, 2, 2, count)
    return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, count, 4 * side, 4 * side)


def _two_by_two(x: Tensor, conv: nn.Module) -> Tensor:
    """A transposed convolution of size and stride 2 on rows: [..., C] to [..., 4, C'], 2 x 2 in reading order."""
    return linear(x, *_as_linear(conv)).unflatten(-1, (4, -1))


def _as_linear(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [4 * C', C] and bias [4 * C'] of the linear layer that a transposed convolution of size 2 is."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)  # weight: [C, C', 2, 2]
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)
