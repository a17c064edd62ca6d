"""SAM 2 as one module: an image model like SAM, and the steps of tracking objects in video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import MASK_THRESHOLD
from segany.core.prompt import PADDING_LABEL
from segany.imaging.interpolate import resize_smoothly
from segany.models.promptable import PromptableModel
from segany.models.sam.mask_decoder import MaskDecoder, arrange_high_res
from segany.models.sam.prompt_encoder import PromptEncoder
from segany.models.sam.two_way_transformer import ImageTokens
from segany.models.sam2.config import Sam2Config
from segany.models.sam2.mask_decoder import Sam2MaskDecoder
from segany.models.sam2.memory_attention import MemoryAttention
from segany.models.sam2.memory_encoder import MemoryEncoder
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory
from segany.nn.layers import MLP
from segany.nn.positions import sine_grid, sine_times

NO_OBJECT_LOGIT = -1024.0
"""Mask logit of every pixel of an object that is not visible."""

LOGIT_LIMIT = 32.0
"""Mask logits that are used as a prompt are clamped to this and its negative.

The official code clamps the logits that it returns, after it has thresholded them. Here they are clamped where
they come back as a prompt, so that no second copy of the masks is needed.
"""

MASK_LOGIT = 10.0
"""Logit of the pixels inside a mask prompt; its negative is that of the pixels outside."""

MASK_STRIDE = 4
"""Pixels of the input per pixel of low-res logits."""


class Sam2(PromptableModel):
    """A model of the SAM 2 family: prompted on images as SAM is, and on video with a memory bank.

    The methods for video are stateless steps on O objects of one frame. The caller keeps the memory bank and
    selects what is attended to; see `segany.predict`.
    """

    pads_boxes = True
    pred_iou_thresh = 0.8
    feature_names = ("image_embedding", "high_res_feats_0", "high_res_feats_1")
    has_memory = True
    objects_at_once = 16
    """Objects that are conditioned on their memories together."""
    config: Sam2Config

    def __init__(self, config: Sam2Config, name: str) -> None:
        super().__init__(config, name)
        width, memory = config.encoder.out_channels, config.memory
        self.image_encoder = config.encoder.build()
        self.mask_downsample = nn.Conv2d(1, 1, MASK_STRIDE, stride=MASK_STRIDE)
        self.memory_attention = MemoryAttention(width, memory)
        self.memory_encoder = MemoryEncoder(width, memory.channels)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = Sam2MaskDecoder(config)
        self.obj_ptr_proj = MLP(width, width, width, 3)
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(memory.num_maskmem, 1, 1, memory.channels))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, width))  # in checkpoints, and never used
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        if memory.obj_ptr_tpos:
            self.obj_ptr_tpos_proj = nn.Linear(width, memory.channels)
        if memory.occlusion_embedding:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory.channels))

    def heads(self) -> tuple[PromptEncoder, MaskDecoder]:
        return self.sam_prompt_encoder, self.sam_mask_decoder

    def set_heads(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        self.sam_prompt_encoder, self.sam_mask_decoder = prompt_encoder, cast(Sam2MaskDecoder, mask_decoder)

    # Images.

    def encode_features(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> tuple[Tensor, ...]:
        """The image embedding [B, C, h, w] without memory, and `feat_s0` and `feat_s1` as in `FrameFeatures`."""
        frame = self.encode_frame(pixels, drop_path_scales)
        return self._without_memory(frame), frame.feat_s0, frame.feat_s1

    def feature_parts(self) -> list[nn.Module | nn.Parameter]:
        decoder = self.sam_mask_decoder
        return [self.image_encoder, decoder.conv_s0, decoder.conv_s1, self.no_mem_embed]

    def unused_on_images(self) -> list[nn.Module]:
        return [self.sam_mask_decoder.pred_obj_score_head]  # no image lacks the object asked for

    def encode_masks(self, mask_logits: Tensor) -> Tensor:
        return super().encode_masks(mask_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))

    def forward(self, pixels: Tensor, points: Tensor, labels: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """One image [3, S, S] and its prompts to low-res logits and predicted IoU."""
        features = [feature[0] for feature in self.encode_features(pixels[None])]
        return self.decode_features(features, points, labels, multimask=multimask)

    # Video.

    def encode_frame(self, pixels: Tensor, drop_path_scales: Tensor | None = None) -> FrameFeatures:
        """Encode a normalized frame [1, 3, S, S], or a batch of them [B, 3, S, S]."""
        scales = () if drop_path_scales is None else (drop_path_scales,)
        image, stride4, stride8 = self.image_encoder(pixels, *scales)
        return FrameFeatures(image, *self.sam_mask_decoder.project_high_res(stride4, stride8))

    def decode_frame(
        self,
        frame: FrameFeatures,
        conditioned: Tensor | None = None,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        mask_logits: Tensor | None = None,
        *,
        multimask: bool | None = None,
    ) -> ObjectMasks:
        """Masks of O objects in one frame.

        Args:
            frame: from `encode_frame`.
            conditioned: [O, C, h, w], from `attend_memory`; None for a frame without memory.
            points: [O, N, 2], pixels of the model's input, boxes as two points before the others; None
                where the objects are tracked without a prompt.
            labels: [O, N], as for `decode_features`; padding is added here.
            mask_logits: [O, 4h, 4w], an earlier prediction for this frame.
            multimask: predict three candidates instead of one; by default with at most one point.
        """
        image = self._without_memory(frame) if conditioned is None else conditioned
        count = next((len(x) for x in (points, mask_logits, conditioned) if x is not None), 1)
        if points is None or labels is None:
            points = image.new_zeros(count, 1, 2)
            labels = torch.full((count, 1), PADDING_LABEL, device=image.device)
            clicks = 0
        else:
            clicks = labels.shape[1]
        if mask_logits is not None:
            mask_logits = mask_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        return self._decode_objects(
            image, frame, points, labels, mask_logits, multimask=clicks <= 1 if multimask is None else multimask
        )

    def _decode_objects(
        self,
        image: Tensor,
        frame: FrameFeatures,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None,
        *,
        multimask: bool,
    ) -> ObjectMasks:
        points = F.pad(points, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1), value=PADDING_LABEL)
        dense = self.sam_prompt_encoder.encode_dense(mask_logits)
        tokens = (image + dense).flatten(2).transpose(1, 2).contiguous()
        high_res_features = arrange_high_res(frame.feat_s0[0], frame.feat_s1[0])
        scene = ImageTokens(tokens, self.sam_prompt_encoder.image_positions(), high_res_features)
        prompt_tokens = self.sam_prompt_encoder.encode_points(points, labels)
        decoded = self.sam_mask_decoder.decode(scene, prompt_tokens, multimask=multimask)
        visible = decoded.object_scores > 0
        low_res = torch.where(visible[:, None, None, None], decoded.low_res, NO_OBJECT_LOGIT)
        pointers = self._hide_pointers(self.obj_ptr_proj(decoded.mask_tokens), visible)
        return ObjectMasks(low_res, decoded.iou, pointers, decoded.object_scores)

    def use_masks_as_output(self, frame: FrameFeatures, masks: Tensor) -> ObjectMasks:
        """Return mask prompts as if the model had predicted them; only the object pointers are computed.

        Args:
            frame: from `encode_frame`.
            masks: [O, S, S], 0 and 1, at the size of the model's input.
        """
        masks = masks.to(frame.image.dtype)[:, None]
        points = frame.image.new_zeros(len(masks), 1, 2)
        labels = torch.full((len(masks), 1), PADDING_LABEL, device=masks.device)
        prompts = self.mask_downsample(masks)[:, 0]
        found = self._decode_objects(frame.image, frame, points, labels, prompts, multimask=False)
        visible = (masks > 0).flatten(1).any(dim=1)
        size = self.low_res_size
        return ObjectMasks(
            low_res=resize_smoothly((2 * masks - 1) * MASK_LOGIT, (size, size)),
            iou=torch.ones_like(found.iou),
            pointers=self._hide_pointers(found.pointers, visible),
            object_scores=(2 * visible.to(masks.dtype) - 1) * MASK_LOGIT,
        )

    def identify(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Object scores [P] and object pointers of all four candidates [P, 4, C], from decoded tokens."""
        scores = self.sam_mask_decoder.pred_obj_score_head(tokens[:, 0])[:, 0]
        count = self.sam_mask_decoder.mask_tokens_count
        return scores, self._hide_pointers(self.obj_ptr_proj(tokens[:, 2 : 2 + count]), scores > 0)

    def _hide_pointers(self, pointers: Tensor, visible: Tensor) -> Tensor:
        """Pointers [O, M, C], replaced where the object is not visible [O]."""
        return torch.where(visible[:, None, None], pointers, self.no_obj_ptr)

    def encode_memory(
        self, frame: FrameFeatures, low_res: Tensor, object_scores: Tensor, *, binarize: bool = False
    ) -> Tensor:
        """Encode the memories of O objects in one frame.

        Args:
            frame: from `encode_frame`.
            low_res: mask logits [O, 4h, 4w] of the chosen candidates.
            object_scores: [O], logits.
            binarize: threshold the masks instead of taking their probabilities; the official code does that
                in prompted frames.

        Returns:
            [O, C_memory, h, w]. The official predictor keeps memories in bfloat16; `attend_memory` takes any
            dtype.
        """
        size = self.config.input_size
        logits = F.interpolate(low_res[:, None].float(), (size, size), mode="bilinear", align_corners=False)
        masks = (logits > MASK_THRESHOLD).float() if binarize else logits.sigmoid()
        return self.encode_mask_memory(frame, masks, object_scores)

    def encode_mask_memory(self, frame: FrameFeatures, masks: Tensor, object_scores: Tensor) -> Tensor:
        """The second half of `encode_memory`, from mask probabilities [O, 1, S, S]."""
        masks = masks * self.config.memory.mask_scale + self.config.memory.mask_bias
        memory: Tensor = self.memory_encoder(frame.image, masks.to(frame.image.dtype))
        if self.config.memory.occlusion_embedding:
            hidden = (object_scores <= 0).to(memory.dtype)[:, None, None, None]
            memory = memory + hidden * self.no_obj_embed_spatial[..., None, None]
        return memory

    def attend_memory(self, frame: FrameFeatures, memories: Sequence[ObjectMemory]) -> Tensor:
        """Condition one frame on the memories of O objects, [O, C, h, w].

        Objects with equally many memories and pointers are computed in batches.
        """
        tokens = self.memory_attention.encode_frame(frame.image)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, memory in enumerate(memories):
            groups.setdefault((len(memory.memories), len(memory.pointers)), []).append(index)
        out = frame.image.new_empty(len(memories), *tokens.tokens.shape[1:])
        for (_, pointers), members in groups.items():
            num_k_exclude_rope = pointers * (frame.image.shape[1] // self.config.memory.channels)
            for first in range(0, len(members), self.objects_at_once):
                some = members[first : first + self.objects_at_once]
                pairs = [self._memory_tokens(memories[index]) for index in some]
                keys, values = (torch.stack(stacked) for stacked in zip(*pairs, strict=True))
                out[some] = self.memory_attention(tokens, keys, values, num_k_exclude_rope)
        return out.transpose(1, 2).unflatten(2, frame.image.shape[2:])

    def _memory_tokens(self, memory: ObjectMemory) -> tuple[Tensor, Tensor]:
        """The memory of one object as keys and values, [S, C_memory] each."""
        memories = torch.stack(memory.memories).to(device=self.device, dtype=self.dtype)
        pointers = torch.stack(memory.pointers).to(memories) if memory.pointers else self.no_obj_ptr[:0]
        maskmem_tpos = torch.tensor(memory.maskmem_tpos, device=self.device)
        pointer_tpos = torch.tensor(memory.pointer_tpos, device=self.device)
        return self.memory_tokens(memories, maskmem_tpos, pointers, pointer_tpos)

    def memory_tokens(
        self, memories: Tensor, maskmem_tpos: Tensor, pointers: Tensor, pointer_tpos: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The memory of one object as keys (tokens with position encoding) and values (tokens without).

        Args:
            memories: [K, C_memory, h, w], from `encode_memory`.
            maskmem_tpos: int64 [K], temporal positions of the memories, as in `memory_bank.MemorySelection`.
            pointers: [L, C], object pointers; L may be 0.
            pointer_tpos: [L], temporal positions of the pointers, as in `memory_bank.MemorySelection`.

        Returns:
            Keys and values, [S, C_memory] each.
        """
        channels = self.config.memory.channels
        values = memories.flatten(2).transpose(1, 2)  # [K, T, C_memory]
        positions = sine_grid((memories.shape[2], memories.shape[3]), channels, values)
        keys = values + positions + self.maskmem_tpos_enc[maskmem_tpos, 0]
        # An object pointer is split into tokens of C_memory channels.
        parts = pointers.unflatten(1, (pointers.shape[1] // channels, channels))  # [L, C / C_memory, C_memory]
        keyed = parts + self._encode_pointer_tpos(pointer_tpos)[:, None]
        return torch.cat([keys.flatten(0, 1), keyed.flatten(0, 1)]), torch.cat(
            [values.flatten(0, 1), parts.flatten(0, 1)]
        )

    def _encode_pointer_tpos(self, pointer_tpos: Tensor) -> Tensor:
        """Encode temporal positions [L] of object pointers to [L, C_memory]; zeros where the model has no encoding."""
        memory = self.config.memory
        if not memory.obj_ptr_tpos:
            return self.no_obj_ptr.new_zeros(pointer_tpos.shape[0], memory.channels)
        encoded = sine_times(pointer_tpos, self.config.encoder.out_channels)
        return self.obj_ptr_tpos_proj(encoded.to(self.dtype))

    def _without_memory(self, frame: FrameFeatures) -> Tensor:
        return frame.image + self.no_mem_embed.transpose(1, 2)[..., None]
