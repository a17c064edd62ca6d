"""The prompt encoder, with the constructor and signatures of the official code."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from segany.compat.configs import given_config, only
from segany.core.errors import check
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, FOREGROUND, PADDING_LABEL
from segany.models.sam import prompt_encoder
from segany.nn.positions import RandomFourierPositions

Points = tuple[Tensor, Tensor]


class PositionEmbeddingRandom(RandomFourierPositions):
    """Position encoding with random Fourier features."""

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__(2 * num_pos_feats)
        if scale is not None and scale > 0:
            self.positional_encoding_gaussian_matrix *= scale

    def forward(self, size: Tensor | tuple[int, int]) -> Tensor:
        """Encode a grid of height and width, [C, H, W]; or coordinates in 0..1, [..., 2] to [..., C]."""
        if isinstance(size, Tensor):
            return super().forward(size)
        return self.grid(size).permute(2, 0, 1)

    def _pe_encoding(self, coords: Tensor) -> Tensor:
        return super().forward(coords)

    def forward_with_coords(self, coords_input: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Encode points in pixels of an image of size `image_size` (H, W): [P, N, 2] to [P, N, C]."""
        return self._pe_encoding(coords_input.float() / coords_input.new_tensor(image_size[::-1], dtype=torch.float))


class PromptEncoder(prompt_encoder.PromptEncoder):
    """Encodes prompts to sparse and dense prompt embeddings."""

    last_label: ClassVar[int] = FOREGROUND
    """Points with a higher label have no learned embedding, only their position encoding."""

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        """Build the encoder with random weights; raises `ConfigError` for sizes that segany does not support."""
        only("activation", activation, nn.GELU)
        height, width = input_image_size
        check(height == width, f"input_image_size must be square in segany, got {input_image_size}.")
        config = given_config(height, embed_dim, mask_channels=mask_in_chans)
        only("image_embedding_size", tuple(image_embedding_size), (config.embedding_size,) * 2)
        super().__init__(config)
        self.embed_dim = embed_dim
        self.input_image_size = input_image_size
        self.image_embedding_size = image_embedding_size
        self.num_point_embeddings = len(self.point_embeddings)
        self.mask_input_size = (config.low_res_size, config.low_res_size)
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)

    def forward(self, points: Points | None, boxes: Tensor | None, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        Args:
            points: points [P, N, 2] in pixels of the model's input, and their labels [P, N].
            boxes: [P, 4].
            masks: low-res logits [P, 1, 4h, 4w].

        Returns:
            Sparse embeddings [P, N', C] and dense embeddings [P, C, h, w].
        """
        count = next((len(x) for x in (None if points is None else points[0], boxes, masks) if x is not None), 1)
        weight = self.no_mask_embed.weight
        sparse = [weight.new_zeros(count, 0, self.embed_dim)]
        if points is not None:
            sparse.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self._embed_boxes(boxes))
        if masks is not None:
            dense = self._embed_masks(masks)
        else:
            dense = self.encode_no_mask().expand(count, -1, *self.image_embedding_size)
        return torch.cat(sparse, dim=1), dense

    def get_dense_pe(self) -> Tensor:
        """Return the position encoding of the image embedding, [1, C, h, w]."""
        return cast(Tensor, self.pe_layer(tuple(self.image_embedding_size)))[None]

    def _embed_points(self, points: Tensor, labels: Tensor, pad: bool) -> Tensor:
        if pad:
            points = torch.cat([points, points.new_zeros(len(points), 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), PADDING_LABEL)], dim=1)
        positions = cast(PositionEmbeddingRandom, self.pe_layer).forward_with_coords(
            points + 0.5, self.input_image_size
        )
        positions = torch.where(labels[..., None] == PADDING_LABEL, 0.0, positions)
        labels = labels.long()
        known = ((labels >= PADDING_LABEL) & (labels <= self.last_label))[..., None]
        kinds = torch.cat([self.not_a_point_embed.weight, *(self._kind(label) for label in range(self.last_label + 1))])
        learned = kinds[labels.clamp(PADDING_LABEL, self.last_label) - PADDING_LABEL]
        return positions + torch.where(known, learned, 0.0)

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        corners = (boxes + 0.5).reshape(-1, 2, 2)
        positions = cast(PositionEmbeddingRandom, self.pe_layer).forward_with_coords(corners, self.input_image_size)
        return positions + torch.cat([self._kind(BOX_TOP_LEFT_LABEL), self._kind(BOX_BOTTOM_RIGHT_LABEL)])

    def _embed_masks(self, masks: Tensor) -> Tensor:
        return cast(Tensor, self.mask_downscaling(masks))

    def _kind(self, label: int) -> Tensor:
        """The learned embedding of points with a label, [1, C]."""
        return cast(nn.Embedding, self.point_embeddings[label]).weight
