"""SAM as one module: image encoder, prompt encoder and mask decoder (SAM, section 3)."""

from __future__ import annotations

from torch import Tensor

from segany.models.promptable import PromptableModel
from segany.models.sam.config import SamConfig
from segany.models.sam.mask_decoder import MaskDecoder
from segany.models.sam.prompt_encoder import PromptEncoder


class Sam(PromptableModel):
    """A promptable segmentation model of the SAM family."""

    pads_boxes = False
    pred_iou_thresh = 0.88

    def __init__(self, config: SamConfig, name: str) -> None:
        super().__init__(config, name)
        self.image_encoder = config.encoder.build()
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        return self.prompt_encoder, self.mask_decoder

    def set_heads(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        self.prompt_encoder, self.mask_decoder = prompt_encoder, mask_decoder

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S], normalized and padded, to image embeddings [B, C, S / 16, S / 16]."""
        embedding: Tensor = self.image_encoder(pixels)
        return embedding

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
