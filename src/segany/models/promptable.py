"""What the SAM families share: an image encoder, a prompt encoder and a mask decoder, as one plain module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segany.core.preprocessing import Preprocessing
from segany.models.image_encoder import ImageEncoder
from segany.models.sam.config import SamConfig
from segany.models.sam.mask_decoder import MaskDecoder, arrange_high_res
from segany.models.sam.prompt_encoder import PromptEncoder
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens


class PromptableModel(nn.Module):
    """A promptable segmentation model, tensors in and tensors out.

    The parameters have the names of the official checkpoints. Nothing here keeps state between calls, so threads
    may share a model. `segany.runtime.torch_model.TorchModel` is the same for predictors.

    Attributes:
        config: the architecture.
        name: the registry's name, written into embeddings.
        encoder_id: digest of the image encoder's weights; empty until weights are loaded.
        pads_boxes: whether prompts with a box get a padding point, as those without one always do.
        pred_iou_thresh: what the authors ask of a mask found automatically.
        feature_names: of what `encode_features` returns; the first is the image embedding.
        has_memory: whether it tracks objects through video, as `Sam2` does.
    """

    image_encoder: ImageEncoder
    pads_boxes: bool
    pred_iou_thresh: float
    feature_names: tuple[str, ...] = ("image_embedding",)
    has_memory = False

    def __init__(self, config: SamConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.encoder_id = ""

    # What a family is made of.

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        """The prompt encoder and the mask decoder, whatever the checkpoint calls them."""
        raise NotImplementedError

    def set_heads(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        """Replace the prompt encoder and the mask decoder."""
        raise NotImplementedError

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, 3, S, S], normalized and padded, to the features of an `Embedding`, each with an axis B.

        The first is the image embedding [B, C, h, w]; others are those of `arrange_high_res`. For training,
        `drop_path_scales` [blocks, 2, B] drop and enlarge branches of the blocks, see `drop_path_residual`.
        """
        raise NotImplementedError

    def feature_parts(self) -> list[nn.Module | nn.Parameter]:
        """All that `encode_features` depends on."""
        return [self.image_encoder]

    def unused_on_images(self) -> list[nn.Module]:
        """Parts of the prompt encoder and the mask decoder that no image without a video uses."""
        return []

    def encode_masks(self, mask_logits: Tensor) -> Tensor:
        """Mask prompts, low-res logits [P, 4h, 4w], to what they add to the image embedding, [P, C, h, w]."""
        prompt_encoder, _ = self.heads()
        return prompt_encoder.encode_masks(mask_logits)

    # What is the same for all.

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
        """Masks for P prompts on one image.

        Args:
            features: of that image, as `encode_features` makes them, without the axis B. For training they
                may have an axis P instead: an image for each prompt.
            points: [P, N, 2], pixels of the model's input; boxes are two points.
            labels: [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: [P, 4h, 4w], or None where no prompt has a mask.
            multimask: three candidates a prompt instead of one.

        Returns:
            Low-res logits [P, M, 4h, 4w] and predicted IoU [P, M].
        """
        prompt_encoder, mask_decoder = self.heads()
        prompt_tokens = prompt_encoder.encode_points(points, labels)
        low_res, iou = mask_decoder(self.image_tokens(features, mask_logits), prompt_tokens, multimask=multimask)
        return low_res, iou

    def image_tokens(self, features: Sequence[Tensor], mask_logits: Tensor | None = None) -> ImageTokens:
        """An image, with the mask prompts added, as the decoder takes it; arguments as for `decode_features`."""
        prompt_encoder, _ = self.heads()
        dense = prompt_encoder.encode_no_mask() if mask_logits is None else self.encode_masks(mask_logits)
        embedding = features[0] if features[0].dim() == 4 else features[0][None]
        tokens = (embedding + dense).flatten(2).transpose(1, 2).contiguous()
        return ImageTokens(tokens, prompt_encoder.image_positions(), _high_res_features(features))


def _high_res_features(features: Sequence[Tensor]) -> HighResFeatures | None:
    """What the features have beside the image embedding, of one image or of one a prompt."""
    if len(features) == 1:
        return None
    if features[0].dim() == 3:
        return arrange_high_res(features[1], features[2])
    arranged = [arrange_high_res(*pair) for pair in zip(features[1], features[2], strict=True)]
    return HighResFeatures(*(torch.cat(parts) for parts in zip(*arranged, strict=True)))
