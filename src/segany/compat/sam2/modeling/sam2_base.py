"""The SAM 2 model, with the attributes and signatures of the official code."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from segany.compat.sam2.overrides import Sam2Settings
from segany.compat.segment_anything.modeling import prompt_encoder
from segany.compat.segment_anything.modeling.mask_decoder import MLP, ByLayer, image_tokens
from segany.compat.segment_anything.modeling.transformer import TwoWayTransformer
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL
from segany.kernels import optimize
from segany.kernels.decoder import FastSam2MaskDecoder
from segany.kernels.memory import FastSam2
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.sam.mask_decoder import DecodedTokens, arrange_high_res
from segany.models.sam.two_way_transformer import HighResFeatures, ImageTokens
from segany.models.sam2.config import Sam2Config
from segany.models.sam2.fpn import ImageEncoderHiera
from segany.models.sam2.model import NO_OBJECT_LOGIT, Sam2
from segany.models.sam2.tracking import FrameFeatures
from segany.nn.positions import sine_grid

NO_OBJ_SCORE = NO_OBJECT_LOGIT


class PromptEncoder(prompt_encoder.PromptEncoder):
    """Encodes prompts to sparse and dense prompt embeddings; the corners of a box may be points of labels 2 and 3."""

    last_label: ClassVar[int] = BOX_BOTTOM_RIGHT_LABEL


class MaskDecoder(ByLayer, FastSam2MaskDecoder):
    """Predicts masks, their IoU, object tokens and object scores."""

    def __init__(self, config: Sam2Config) -> None:
        """Build the decoder with random weights."""
        super().__init__(config)
        width, decoder = config.encoder.out_channels, config.decoder
        rate = width // decoder.cross_attention_width
        self.transformer = TwoWayTransformer(
            decoder.depth, width, decoder.heads, decoder.mlp_width, attention_downsample_rate=rate
        )
        for block in self.transformer.blocks():
            block.mlp = MLP(width, decoder.mlp_width, width, 2)

    def forward(  # type: ignore[override]  # the signature of the official code
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        repeat_image: bool,
        high_res_features: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict masks for P prompts.

        Args:
            image_embeddings: [1, C, h, w], or one for each prompt.
            image_pe: from `PromptEncoder.get_dense_pe`.
            sparse_prompt_embeddings, dense_prompt_embeddings: from `PromptEncoder`.
            multimask_output: predict three masks for each prompt instead of one.
            repeat_image: whether one image serves all prompts; the batch of `image_embeddings` tells that already.
            high_res_features: maps of strides 4 and 8, from `SAM2Base.forward_image`.

        Returns:
            Low-res logits [P, M, 4h, 4w], predicted IoU [P, M], object tokens [P, M, C] and object scores [P, 1].
        """
        del repeat_image
        image = self._image(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, high_res_features
        )
        found = self.decode(image, sparse_prompt_embeddings, multimask=multimask_output)
        return found.low_res, found.iou, found.mask_tokens, found.object_scores[:, None]

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        repeat_image: bool,
        high_res_features: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict all masks, the single mask first; arguments and results are those of `forward`."""
        del repeat_image
        image = self._image(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, high_res_features
        )
        tokens, transformed = self.run_transformer(image, sparse_prompt_embeddings)
        iou = torch.sigmoid(self.iou_prediction_head(tokens[:, 1]))
        mask_tokens = tokens[:, 2 : 2 + self.mask_tokens_count]
        weights = self.mask_weights(mask_tokens, slice(0, self.mask_tokens_count))
        low_res = self.all_masks(DecodedTokens(weights, transformed, iou, tokens), image.high_res_features)
        return low_res, iou, mask_tokens, self.pred_obj_score_head(tokens[:, 0])

    def _image(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        high_res_features: list[Tensor] | None,
    ) -> ImageTokens:
        features = None if high_res_features is None else _arranged(*high_res_features)
        return image_tokens(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, features)


def _arranged(stride4: Tensor, stride8: Tensor) -> HighResFeatures:
    """Arrange the high-resolution maps of one or several images in the order of the image tokens."""
    rows = [arrange_high_res(*pair) for pair in zip(stride4, stride8, strict=True)]
    return HighResFeatures(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


class ImageEncoder(ImageEncoderHiera):
    """The image encoder, which returns a dictionary as that of the official code."""

    def forward(  # type: ignore[override]  # the result of the official code
        self, pixels: Tensor, drop_path_scales: Tensor | None = None
    ) -> dict[str, Any]:
        """Encode normalized images [B, 3, S, S].

        Returns:
            `backbone_fpn`: maps of strides 4, 8 and 16, [B, C, H, W]; `vision_pos_enc`: their position encodings;
            `vision_features`: the last map.
        """
        image, stride4, stride8 = super().forward(pixels, drop_path_scales)
        return maps_with_positions([stride4, stride8, image])


def maps_with_positions(maps: list[Tensor]) -> dict[str, Any]:
    """Add the position encodings of the image encoder to maps of strides 4, 8 and 16."""
    channels = maps[-1].shape[1]
    positions = []
    for one in maps:
        size_hw = (one.shape[2], one.shape[3])
        grid = sine_grid(size_hw, channels, one).t()
        positions.append(torch.unflatten(grid, 1, size_hw).expand(len(one), -1, -1, -1))
    return {"vision_features": maps[-1], "vision_pos_enc": positions, "backbone_fpn": maps}


class _ByOfficialEncoder(Sam2):
    """Encodes frames by calling the image encoder, where no form for the CPU does it in parts."""

    def encode_frame(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> FrameFeatures:
        given = () if drop_path_scales is None else (drop_path_scales,)
        stride4, stride8, image = self.image_encoder(pixels, *given)["backbone_fpn"]
        return FrameFeatures(image, *self.sam_mask_decoder.project_high_res(stride4, stride8))


class SAM2Base(FastSam2, _ByOfficialEncoder):
    """A SAM 2 model; `segany.compat.sam2.build_sam` builds it.

    Attributes:
        image_size: side of the square input in pixels.
        settings: the settings that overrides may change.
    """

    def __init__(self, config: Sam2Config, name: str, settings: Sam2Settings) -> None:
        """Build the model with random weights."""
        config = settings.applied_to(config)
        super().__init__(config, name)
        width = config.encoder.out_channels
        self.image_encoder.__class__ = ImageEncoder  # building another one would take as long again
        self.sam_prompt_encoder = PromptEncoder(
            width, (config.embedding_size,) * 2, (config.input_size,) * 2, config.mask_channels
        )
        self.sam_mask_decoder = MaskDecoder(config)
        self.settings = settings
        self.image_size = config.input_size
        self.hidden_dim, self.mem_dim, self.num_maskmem = width, config.memory.channels, config.memory.num_maskmem
        self.num_feature_levels, self.backbone_stride = len(config.encoder_strides), EMBEDDING_STRIDE
        self.directly_add_no_mem_embed = self.use_high_res_features_in_sam = True
        optimize(self)

    def forward_image(self, img_batch: Tensor) -> dict[str, Any]:
        """Encode normalized images [B, 3, S, S].

        Returns:
            `backbone_fpn`: maps of strides 4, 8 and 16, [B, C', H, W], of which the first two are projected for the
            mask decoder; `vision_pos_enc`: position encodings, [B, C, H, W] each; `vision_features`: the last map.
        """
        frame = self.encode_frame(img_batch)
        return maps_with_positions([frame.feat_s0, frame.feat_s1, frame.image])

    def _prepare_backbone_features(
        self, backbone_out: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Tensor], list[Tensor], list[tuple[int, int]]]:
        """Flatten the maps of `forward_image` to [H * W, B, C] each, with their sizes (H, W)."""
        maps, positions = cast("list[Tensor]", backbone_out["backbone_fpn"]), backbone_out["vision_pos_enc"]
        flat, flat_positions = ([one.flatten(2).permute(2, 0, 1) for one in some] for some in (maps, positions))
        return backbone_out.copy(), flat, flat_positions, [(one.shape[2], one.shape[3]) for one in maps]
