"""The SAM 2 model, with the attributes and signatures of the official code."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from segany.compat.sam2.overrides import Sam2Settings
from segany.compat.segment_anything.modeling import prompt_encoder
from segany.compat.segment_anything.modeling.mask_decoder import MLP, ByLayer, image_tokens
from segany.compat.segment_anything.modeling.transformer import TwoWayTransformer
from segany.core.arrays import SizeHW
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL
from segany.kernels import optimize
from segany.kernels.decoder import FastSam2MaskDecoder
from segany.kernels.memory import FastSam2
from segany.models.sam.mask_decoder import arrange_high_res
from segany.models.sam.two_way_transformer import HighResFeatures
from segany.models.sam2.config import Sam2Config
from segany.models.sam2.model import NO_OBJECT_LOGIT
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
        features = None if high_res_features is None else _arranged(*high_res_features)
        image = image_tokens(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, features)
        found = self.decode(image, sparse_prompt_embeddings, multimask=multimask_output)
        return found.low_res, found.iou, found.mask_tokens, found.object_scores[:, None]


def _arranged(stride4: Tensor, stride8: Tensor) -> HighResFeatures:
    """Arrange the high-resolution maps of one or several images in the order of the image tokens."""
    rows = [arrange_high_res(*pair) for pair in zip(stride4, stride8, strict=True)]
    return HighResFeatures(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


class SAM2Base(FastSam2):
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
        self.sam_prompt_encoder = PromptEncoder(
            width, (config.embedding_size,) * 2, (config.input_size,) * 2, config.mask_channels
        )
        self.sam_mask_decoder = MaskDecoder(config)
        self.settings = settings
        self.image_size = config.input_size
        self.hidden_dim, self.mem_dim, self.num_maskmem = width, config.memory.channels, config.memory.num_maskmem
        self.num_feature_levels = len(config.encoder_strides)
        self.directly_add_no_mem_embed = self.use_high_res_features_in_sam = True
        self._positions: list[Tensor] = []
        optimize(self)

    def forward_image(self, img_batch: Tensor) -> dict[str, Any]:
        """Encode normalized images [B, 3, S, S].

        Returns:
            `backbone_fpn`: maps of strides 4, 8 and 16, [B, C', H, W], of which the first two are projected for the
            mask decoder; `vision_pos_enc`: position encodings, [B, C, H, W] each; `vision_features`: the last map.
        """
        frame = self.encode_frame(img_batch)
        maps = [frame.feat_s0, frame.feat_s1, frame.image]
        if len(self._positions) != len(maps) or self._positions[0].device != frame.image.device:
            self._positions = [self._position_map((one.shape[2], one.shape[3]), frame.image) for one in maps]
        positions = [one.expand(len(img_batch), -1, -1, -1) for one in self._positions]
        return {"vision_features": frame.image, "vision_pos_enc": positions, "backbone_fpn": maps}

    def _position_map(self, size_hw: SizeHW, like: Tensor) -> Tensor:
        return torch.unflatten(sine_grid(size_hw, self.hidden_dim, like).t(), 1, size_hw)[None]

    def _prepare_backbone_features(
        self, backbone_out: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Tensor], list[Tensor], list[tuple[int, int]]]:
        """Flatten the maps of `forward_image` to [H * W, B, C] each, with their sizes (H, W)."""
        maps, positions = cast("list[Tensor]", backbone_out["backbone_fpn"]), backbone_out["vision_pos_enc"]
        flat, flat_positions = ([one.flatten(2).permute(2, 0, 1) for one in some] for some in (maps, positions))
        return backbone_out.copy(), flat, flat_positions, [(one.shape[2], one.shape[3]) for one in maps]
