"""SAM as one module: image encoder, prompt encoder and mask decoder (SAM, section 3)."""

from __future__ import annotations

from torch import Tensor, nn

from segany.models.mobile_sam.config import TinyVitConfig
from segany.models.mobile_sam.tiny_vit import ImageEncoderTinyVit
from segany.models.promptable import PromptableModel
from segany.models.sam.config import SamConfig, VitConfig
from segany.models.sam.mask_decoder import MaskDecoder
from segany.models.sam.prompt_encoder import PromptEncoder
from segany.models.sam.vit import ImageEncoderVit


def _build_encoder(config: SamConfig) -> nn.Module:
    if isinstance(config.encoder, TinyVitConfig):
        return ImageEncoderTinyVit(config.encoder)
    assert isinstance(config.encoder, VitConfig)
    return ImageEncoderVit(config.encoder)


class Sam(PromptableModel):
    """A promptable segmentation model of the SAM family."""

    pads_boxes = False
    pred_iou_thresh = 0.88

    def __init__(self, config: SamConfig, name: str) -> None:
        super().__init__(config, name)
        self.image_encoder = _build_encoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        return self.prompt_encoder, self.mask_decoder

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S], normalized and padded, to image embeddings [B, C, S / 16, S / 16]."""
        return self.image_encoder(pixels)

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        if drop_path_scales is None:
            return (self.encode_image(pixels),)
        return (self.image_encoder(pixels, drop_path_scales),)

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """`decode_features` for an image embedding [C, h, w]."""
        return self.decode_features((embedding,), points, labels, mask_logits, multimask=multimask)

    def forward(self, pixels: Tensor, points: Tensor, labels: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """One image [3, S, S] and its prompts to low-res logits and predicted IoU: `encode_image`, then `decode`."""
        return self.decode(self.encode_image(pixels[None])[0], points, labels, multimask=multimask)
