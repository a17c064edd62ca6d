"""Base class of the SAM and SAM 2 models: image encoder, prompt encoder and mask decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segany.core.arrays import STABILITY_SCORE_THRESH
from segany.core.preprocessing import Preprocessing
from segany.models.image_encoder import ImageEncoder
from segany.models.sam.config import SamConfig
from segany.models.sam.mask_decoder import MaskDecoder, arrange_high_res
from segany.models.sam.prompt_encoder import PromptEncoder
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens


class PromptableModel(nn.Module):
    """A promptable segmentation model with tensors as inputs and outputs.

    Parameters have the names of the official checkpoints. The model keeps no state between calls, so threads may
    share it. `segany.runtime.torch_model.TorchModel` wraps it for predictors.

    Attributes:
        config: the architecture.
        name: name in the registry, written to embeddings.
        encoder_id: digest of the image encoder's weights; empty until weights are loaded.
        pads_boxes: whether prompts with a box get a padding point too, as prompts without a box always do.
        pred_iou_thresh: default threshold on the predicted IoU of automatic masks.
        stability_score_thresh: default threshold on the stability score of automatic masks. The score depends on how
            steep the logits are at the edge of a mask, which training changes: a trained model has its own.
        feature_names: names of the outputs of `encode_features`; the first is the image embedding.
        has_memory: whether the model has a memory bank for video, as `Sam2`.
    """

    image_encoder: ImageEncoder
    pads_boxes: bool
    pred_iou_thresh: float
    stability_score_thresh: float = STABILITY_SCORE_THRESH
    feature_names: tuple[str, ...] = ("image_embedding",)
    has_memory = False

    def __init__(self, config: SamConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.encoder_id = ""

    # Implemented by the families.

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        """Return the prompt encoder and the mask decoder, whose attribute names differ between families."""
        raise NotImplementedError

    def set_heads(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        """Replace the prompt encoder and the mask decoder."""
        raise NotImplementedError

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode images to the features of an `Embedding`, with a batch axis.

        Args:
            pixels: [B, 3, S, S], normalized and padded.
            drop_path_scales: [blocks, 2, B], for drop path in training; see `drop_path_residual`.

        Returns:
            The image embedding [B, C, h, w], then any high-resolution features as for `arrange_high_res`.
        """
        raise NotImplementedError

    def feature_parts(self) -> list[nn.Module | nn.Parameter]:
        """Return all modules and parameters that `encode_features` depends on."""
        return [self.image_encoder]

    def unused_on_images(self) -> list[nn.Module]:
        """Return modules of the prompt encoder and the mask decoder that are used for video only."""
        return []

    def encode_masks(self, mask_logits: Tensor) -> Tensor:
        """Encode mask prompts, low-res logits [P, 4h, 4w], to dense prompt embeddings [P, C, h, w]."""
        prompt_encoder, _ = self.heads()
        return prompt_encoder.encode_masks(mask_logits)

    # Shared by the families.

    @property
    def preprocessing(self) -> Preprocessing:
        return self.config.preprocessing

    @property
    def low_res_size(self) -> int:
        return self.config.low_res_size

    @property
    def device(self) -> torch.device:
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        return self._parameter.dtype

    @property
    def _parameter(self) -> Tensor:
        prompt_encoder, _ = self.heads()
        return prompt_encoder.no_mask_embed.weight

    def decode_features(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks for P prompts on one image.

        Args:
            features: output of `encode_features` for the image, without the batch axis. For training they may have
                an axis P instead: an image for each prompt.
            points: [P, N, 2], pixels of the model's input; boxes are two points.
            labels: int64 [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: [P, 4h, 4w], or None if no prompt has a mask.
            multimask: predict three candidates per prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M].
        """
        prompt_encoder, mask_decoder = self.heads()
        prompt_tokens = prompt_encoder.encode_points(points, labels)
        low_res, iou = mask_decoder(self.image_tokens(features, mask_logits), prompt_tokens, multimask=multimask)
        return low_res, iou

    def image_tokens(self, features: Sequence[Tensor], mask_logits: Tensor | None = None) -> ImageTokens:
        """Make the input of the decoder: image tokens with the dense prompt embedding added.

        Arguments are those of `decode_features`.
        """
        prompt_encoder, _ = self.heads()
        dense = prompt_encoder.encode_no_mask() if mask_logits is None else self.encode_masks(mask_logits)
        embedding = features[0] if features[0].dim() == 4 else features[0][None]
        tokens = (embedding + dense).flatten(2).transpose(1, 2).contiguous()
        return ImageTokens(tokens, prompt_encoder.image_positions(), _high_res_features(features))


def _high_res_features(features: Sequence[Tensor]) -> HighResFeatures | None:
    """Arrange the high-resolution features of one image, or of an image for each prompt; None if there are none."""
    if len(features) == 1:
        return None
    if features[0].dim() == 3:
        return arrange_high_res(features[1], features[2])
    arranged = [arrange_high_res(*pair) for pair in zip(features[1], features[2], strict=True)]
    return HighResFeatures(*(torch.cat(parts) for parts in zip(*arranged, strict=True)))
