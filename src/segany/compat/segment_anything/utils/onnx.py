"""The prompt encoder, mask decoder and postprocessing of SAM as one module, for export to ONNX."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.compat.segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from segany.compat.segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segany.compat.segment_anything.utils.amg import calculate_stability_score
from segany.core.prompt import PADDING_LABEL


class SamOnnxModel(nn.Module):
    """Predicts masks at the size of the image from an image embedding and one prompt, with tensors only."""

    def __init__(
        self,
        model: Sam,
        return_single_mask: bool,
        use_stability_score: bool = False,
        return_extra_metrics: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: the model.
            return_single_mask: return only the best mask.
            use_stability_score: return stability scores instead of predicted IoU.
            return_extra_metrics: return stability scores and areas too.
        """
        super().__init__()
        self.mask_decoder = model.mask_decoder
        self.model = model
        self.img_size = cast(int, model.image_encoder.img_size)
        self.return_single_mask = return_single_mask
        self.use_stability_score = use_stability_score
        self.stability_score_offset = 1.0
        self.return_extra_metrics = return_extra_metrics

    @property
    def _prompt_encoder(self) -> PromptEncoder:
        return cast(PromptEncoder, self.model.prompt_encoder)

    @staticmethod
    def resize_longest_image_size(input_image_size: Tensor, longest_side: int) -> Tensor:
        """Return the size (h, w), int64, of an image of size (H, W) after resizing."""
        size = input_image_size.to(torch.float32)
        return torch.floor(size * (longest_side / size.max()) + 0.5).to(torch.int64)

    def _embed_points(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        encoder = self._prompt_encoder
        positions = cast(PositionEmbeddingRandom, encoder.pe_layer)._pe_encoding((point_coords + 0.5) / self.img_size)
        labels = point_labels[..., None].expand_as(positions)
        embedded = positions * (labels != PADDING_LABEL)
        kinds = enumerate((encoder.not_a_point_embed, *encoder.point_embeddings), start=PADDING_LABEL)
        for label, kind in kinds:
            embedded = embedded + cast(nn.Embedding, kind).weight * (labels == label)
        return embedded

    def _embed_masks(self, input_mask: Tensor, has_mask_input: Tensor) -> Tensor:
        encoder = self._prompt_encoder
        encoded: Tensor = has_mask_input * encoder.mask_downscaling(input_mask)
        return encoded + (1 - has_mask_input) * encoder.encode_no_mask()

    def mask_postprocessing(self, masks: Tensor, orig_im_size: Tensor) -> Tensor:
        """Upscale low-res logits to the size of the image, a tensor (H, W)."""
        square = (self.img_size, self.img_size)
        masks = F.interpolate(masks, size=square, mode="bilinear", align_corners=False)
        height, width = self.resize_longest_image_size(orig_im_size, self.img_size)
        size = orig_im_size.to(torch.int64)
        cropped = masks[..., :height, :width]  # a graph keeps the tensors
        return F.interpolate(cropped, size=(size[0], size[1]), mode="bilinear", align_corners=False)  # type: ignore[arg-type]

    def select_masks(self, masks: Tensor, iou_preds: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
        """Select the single mask for more than two points, else the best of the others, without branches."""
        count = cast(MaskDecoder, self.model.mask_decoder).num_mask_tokens
        preference = torch.tensor([[1000.0] + [0.0] * (count - 1)], device=iou_preds.device)
        best = (iou_preds + (num_points - 2.5) * preference).argmax(dim=1)
        rows = torch.arange(masks.shape[0], device=masks.device)
        return masks[rows, best][:, None], iou_preds[rows, best][:, None]

    @torch.no_grad()
    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, ...]:
        """Predict masks for one prompt.

        Args:
            image_embeddings: [1, C, h, w].
            point_coords, point_labels: [1, N, 2] in pixels of the model's input and [1, N], with boxes as points of
                labels 2 and 3, and a padding point of label -1.
            mask_input, has_mask_input: low-res logits [1, 1, 4h, 4w], and 1 or 0, [1].
            orig_im_size: (H, W) of the image, [2].

        Returns:
            Mask logits [1, M, H, W], scores [1, M], then stability scores and areas if wanted, and low-res logits.
        """
        masks, scores = cast(MaskDecoder, self.model.mask_decoder).predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self._prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=self._embed_points(point_coords, point_labels),
            dense_prompt_embeddings=self._embed_masks(mask_input, has_mask_input),
        )
        threshold, offset = self.model.mask_threshold, self.stability_score_offset
        if self.use_stability_score:
            scores = calculate_stability_score(masks, threshold, offset)
        if self.return_single_mask:
            masks, scores = self.select_masks(masks, scores, point_coords.shape[1])
        upscaled = self.mask_postprocessing(masks, orig_im_size)
        if not self.return_extra_metrics:
            return upscaled, scores, masks
        areas = (upscaled > threshold).flatten(-2).sum(-1)
        return upscaled, scores, calculate_stability_score(upscaled, threshold, offset), areas, masks
