"""SAM 2's mask decoder: SAM's, with finer image features and a guess whether the object is there at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segany.core.arrays import MASK_THRESHOLD
from segany.models.sam.mask_decoder import AllCandidates, DecodedTokens, MaskDecoder
from segany.models.sam.two_way_transformer import ImageTokens
from segany.models.sam2.config import Sam2Config
from segany.nn.layers import MLP, pointwise


class DecodedObjects(NamedTuple):
    """What the decoder says about P prompts.

    Attributes:
        low_res: logits [P, M, 4h, 4w].
        iou: [P, M], predicted IoU.
        mask_tokens: [P, M, C], the tokens of those masks. A single mask has the token for single masks,
            even where it gave way to a better one.
        object_scores: [P], logits: above zero the object is visible.
    """

    low_res: Tensor
    iou: Tensor
    mask_tokens: Tensor
    object_scores: Tensor


class Sam2MaskDecoder(MaskDecoder):
    """Predicts masks, their IoU, and whether the object is visible."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__(config)
        width, decoder = config.encoder.out_channels, config.decoder
        self.stability_delta, self.stability_thresh = decoder.stability_delta, decoder.stability_thresh
        self.obj_score_token = nn.Embedding(1, width)
        self.conv_s0 = nn.Conv2d(width, width // 8, 1)
        self.conv_s1 = nn.Conv2d(width, width // 4, 1)
        self.pred_obj_score_head = MLP(width, width, 1, 3)

    def project_high_res(self, stride4: Tensor, stride8: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of the encoder [B, C, 4h, 4w] and [B, C, 2h, 2w] to `FrameFeatures.feat_s0` and `feat_s1`."""
        pairs = ((stride4, self.conv_s0), (stride8, self.conv_s1))
        feat_s0, feat_s1 = (pointwise(x.permute(0, 2, 3, 1), conv).permute(0, 3, 1, 2) for x, conv in pairs)
        return feat_s0, feat_s1

    def output_tokens(self) -> Tensor:
        return torch.cat([self.obj_score_token.weight, super().output_tokens()])

    def forward(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """As `MaskDecoder.forward`; a single mask that is not stable gives way to the best of three."""
        decoded = self.decode(image, prompt_tokens, multimask=multimask)
        return decoded.low_res, decoded.iou

    def decode(self, image: ImageTokens, prompt_tokens: Tensor, *, multimask: bool) -> DecodedObjects:
        """The same with everything that tracking needs."""
        decoded = self.transform(image, prompt_tokens, multimask=multimask)
        low_res, iou = self.all_masks(decoded, image.high_res_features), decoded.iou
        if not multimask and low_res.shape[1] > 1:
            low_res, iou = self._stable(low_res, iou)
        chosen = slice(1, self.mask_tokens_count) if multimask else slice(0, 1)
        object_scores = self.pred_obj_score_head(decoded.tokens[:, 0])[:, 0]
        return DecodedObjects(low_res, iou, decoded.tokens[:, 2:][:, chosen], object_scores)

    def all_candidates(self, image: ImageTokens, prompt_tokens: Tensor) -> AllCandidates:
        """As `MaskDecoder.all_candidates`; the single mask is the best of three where it is not stable itself."""
        tokens, image_tokens = self.run_transformer(image, prompt_tokens)
        iou = torch.sigmoid(self.iou_prediction_head(tokens[:, 1]))
        weights = self.mask_weights(tokens[:, 2:], slice(0, self.mask_tokens_count))
        low_res = self.output_upscaling.masks(image_tokens, weights, image.high_res_features)
        if self.stability_thresh is not None:
            best = iou[:, 1:].argmax(dim=1, keepdim=True) + 1
            places = torch.cat([torch.zeros_like(best), best], dim=1)
            pair = low_res.gather(1, places[..., None, None].expand(-1, -1, *low_res.shape[2:]))
            single, single_iou = self._stable(pair, iou.gather(1, places))
            low_res, iou = torch.cat([single, low_res[:, 1:]], dim=1), torch.cat([single_iou, iou[:, 1:]], dim=1)
        return AllCandidates(low_res, iou, tokens)

    def read_tokens(self, tokens: Tensor, image: Any, *, multimask: bool) -> DecodedTokens:
        """As `MaskDecoder.read_tokens`; for a single mask also the best of the three, in second place."""
        iou = torch.sigmoid(self.iou_prediction_head(tokens[:, 1]))
        weights = self.mask_weights(tokens[:, 2:], slice(0, self.mask_tokens_count))
        if multimask:
            return DecodedTokens(weights[:, 1:], image, iou[:, 1:], tokens)
        places = iou.new_zeros(len(iou), 1, dtype=torch.long)
        if self.stability_thresh is not None and not self.training:
            places = torch.cat([places, iou[:, 1:].argmax(dim=1, keepdim=True) + 1], dim=1)
        weights = weights.gather(1, places[..., None].expand(-1, -1, weights.shape[-1]))
        return DecodedTokens(weights, image, iou.gather(1, places), tokens)

    def _stable(self, low_res: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Of two candidates [P, 2, h, w] the first where it is stable, else the second: [P, 1, h, w] and [P, 1]."""
        first = low_res[:, 0].flatten(1)
        inner = (first > MASK_THRESHOLD + self.stability_delta).sum(dim=1)
        outer = (first > MASK_THRESHOLD - self.stability_delta).sum(dim=1)
        # Comparing products spares the case of an empty mask, which is stable.
        stable = (inner >= (self.stability_thresh or 0.0) * outer)[:, None]
        chosen = torch.where(stable[..., None, None], low_res[:, :1], low_res[:, 1:])
        return chosen, torch.where(stable, iou[:, :1], iou[:, 1:])
