"""The prompt encoder: sparse embeddings of points and boxes, dense embeddings of masks (SAM, section A)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from segany.core.prompt import BACKGROUND, BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, FOREGROUND, PADDING_LABEL
from segany.models.sam.config import SamConfig
from segany.nn.layers import LayerNorm2d
from segany.nn.positions import RandomFourierPositions

POINT_KINDS = (BACKGROUND, FOREGROUND, BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL)
"""Labels of the point embeddings, in the order of the checkpoint."""


class PromptEncoder(nn.Module):
    """Encodes prompts with coordinates in pixels of the model's input.

    A box is two points with special labels. Labels are -1 padding, 0 background, 1 foreground, 2 and 3 the corners of
    a box.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width, hidden = config.encoder.out_channels, config.mask_channels
        self.input_size = config.input_size
        self.embedding_size = config.embedding_size
        self.pe_layer = RandomFourierPositions(width)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in POINT_KINDS)
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, 2, stride=2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, width, 1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def encode_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Encode points and boxes to sparse prompt embeddings.

        Args:
            points: [P, N, 2], xy in pixels of the input.
            labels: int64 [P, N].

        Returns:
            Prompt tokens [P, N, C].
        """
        # Shift to the center of the pixel.
        positions = self.pe_layer((points + 0.5) / self.input_size)
        positions = torch.where(labels[..., None] == PADDING_LABEL, torch.zeros_like(positions), positions)
        kinds = torch.cat(
            [cast(nn.Embedding, kind).weight for kind in (self.not_a_point_embed, *self.point_embeddings)]
        )
        return positions + kinds[labels - PADDING_LABEL]

    def encode_masks(self, mask_logits: Tensor) -> Tensor:
        """Encode low-res logits [P, 4h, 4w] to dense prompt embeddings [P, C, h, w]."""
        return self.mask_downscaling(mask_logits[:, None])

    def encode_dense(self, mask_logits: Tensor | None) -> Tensor:
        """Return the dense prompt embedding: `encode_masks`, or `encode_no_mask` if `mask_logits` is None."""
        return self.encode_no_mask() if mask_logits is None else self.encode_masks(mask_logits)

    def encode_no_mask(self) -> Tensor:
        """Return the dense embedding of a prompt without a mask, [1, C, 1, 1]."""
        return self.no_mask_embed.weight[:, :, None, None]

    def image_positions(self) -> Tensor:
        """Return the position encoding of the image embedding (`get_dense_pe`), [h * w, C]."""
        return self.pe_layer.grid((self.embedding_size, self.embedding_size)).flatten(0, 1)
