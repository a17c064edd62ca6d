"""The steps of tracking: prediction of objects in one frame from prompts or from the memory bank."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from segany.core.arrays import BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, Prompt
from segany.imaging.interpolate import resize_mask, resize_smoothly
from segany.imaging.prompt_masks import prompt_mask_logits
from segany.models.sam2.model import MASK_LOGIT, Sam2
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory
from segany.predict.object_track import FrameMemory, ObjectTrack, PreviousOutput
from segany.predict.video_config import VideoConfig

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


class FrameContext(NamedTuple):
    """The current frame of tracking.

    Attributes:
        frame: number of the frame.
        size_hw: size of the video.
        frames_count: number of frames of the video; None if it is not known.
        reverse: whether tracking goes backward.
    """

    frame: int
    size_hw: SizeHW
    frames_count: int | None
    reverse: bool


class Tracker:
    """Runs the steps of tracking with a SAM 2 model. It keeps no state between calls."""

    def __init__(self, model: TorchModel, config: VideoConfig) -> None:
        self.model = cast(Sam2, model.module)
        self.processor = model.processor
        self.config = config

    @torch.inference_mode()
    def encode_frame(self, pixels: PixelArray) -> FrameFeatures:
        """Encode a frame, uint8 [H, W, 3]."""
        return self.model.encode_frame(self.processor.frame_tensor(pixels, self.model))

    @torch.inference_mode()
    def predict_prompted_frame(
        self,
        features: FrameFeatures,
        context: FrameContext,
        track: ObjectTrack,
        prompt: Prompt,
        previous: PreviousOutput,
    ) -> FrameMemory:
        """Predict the mask of an object in a frame with a prompt, and encode its memory.

        Args:
            features: features of the frame.
            context: the frame; `previous` determines the direction.
            track: the object.
            prompt: all prompts of the object on this frame.
            previous: the prediction on this frame before the prompt.
        """
        context = context._replace(reverse=previous.reverse)
        conditioned = None
        if previous.was_tracked:
            conditioned = self.model.attend_memory(features, [self._gather_memory(track, context)])
        mask_logits = prompt_mask_logits(prompt, self.model.preprocessing, self.model.low_res_size)
        if mask_logits is not None:
            logits: Tensor | None = torch.tensor(mask_logits)
        elif previous.mask is not None:
            logits = self._mask_to_logits(previous.mask)
        else:
            logits = previous.low_res
        points, labels = self._input_points(prompt, context.size_hw)
        masks = self.model.decode_frame(
            features,
            conditioned,
            None if points is None else torch.tensor(points, device=self.model.device)[None],
            None if labels is None else torch.tensor(labels, device=self.model.device)[None],
            None if logits is None else logits.to(device=self.model.device, dtype=self.model.dtype)[None],
        )
        binarize = self.config.binarize_prompted
        return self._encode_memories(
            features, masks.best(), binarize=binarize, reverse=previous.reverse, was_tracked=previous.was_tracked
        )[0]

    @torch.inference_mode()
    def use_mask_prompt(self, features: FrameFeatures, mask: BoolArray) -> FrameMemory:
        """Use a mask prompt, bool [H, W], as the prediction, and encode its memory."""
        square = resize_mask(mask, self.model.preprocessing.input_size)
        masks = torch.from_numpy(square[None].astype(np.float32)).to(self.model.device)
        found = self.model.use_masks_as_output(features, masks)
        binarize = self.config.binarize_prompted
        return self._encode_memories(features, found, binarize=binarize, reverse=False, was_tracked=False)[0]

    @torch.inference_mode()
    def propagate_frame(
        self, features: FrameFeatures, context: FrameContext, tracks: Sequence[ObjectTrack]
    ) -> list[FrameMemory]:
        """Predict the masks of objects in a frame from their memory banks, in one batch, and encode the memories."""
        conditioned = self.model.attend_memory(features, [self._gather_memory(track, context) for track in tracks])
        masks = self._select_candidates(self.model.decode_frame(features, conditioned), tracks)
        return self._encode_memories(features, masks, binarize=False, reverse=context.reverse, was_tracked=True)

    def low_res(self, entries: Sequence[FrameMemory]) -> FloatArray:
        """Stack the mask logits of O predictions: float32 [1, O, 4h, 4w]."""
        side = self.model.low_res_size
        low_res = np.empty((1, len(entries), side, side), dtype=np.float32)
        for row, one in zip(low_res[0], entries, strict=True):
            assert one.low_res is not None  # logits of the current frame and of prompted frames are kept
            row[:] = one.low_res.cpu().numpy()
        return low_res

    def _gather_memory(self, track: ObjectTrack, context: FrameContext) -> ObjectMemory:
        return track.gather_memory(
            context.frame,
            self.model.config.memory,
            reverse=context.reverse,
            frames_count=context.frames_count,
            reliable_only=self.config.motion_aware,
        )

    def _select_candidates(self, masks: ObjectMasks, tracks: Sequence[ObjectTrack]) -> ObjectMasks:
        """Select one candidate mask of each object."""
        if not self.config.motion_aware or masks.iou.shape[1] == 1:
            return masks.best()
        low_res, iou = masks.low_res.float().cpu().numpy(), masks.iou.float().cpu().numpy()
        chosen = [track.motion.choose(*pair) for track, *pair in zip(tracks, low_res, iou, strict=True)]
        return masks.choose(torch.tensor(chosen, device=masks.iou.device))

    def _encode_memories(
        self, features: FrameFeatures, masks: ObjectMasks, *, binarize: bool, reverse: bool, was_tracked: bool
    ) -> list[FrameMemory]:
        """Encode the selected candidate of each object to an entry of its memory bank."""
        memory = self.model.encode_memory(features, masks.low_res[:, 0], masks.object_scores, binarize=binarize)
        memory = memory.bfloat16()  # as in the official code
        scores, iou = masks.object_scores.float().cpu(), masks.iou[:, 0].float().cpu()
        return [
            FrameMemory(
                memory=_own_copy(memory[index]),
                pointer=_own_copy(masks.pointers[index, 0]),
                low_res=_own_copy(masks.low_res[index, 0].float()),
                object_score=float(scores[index]),
                predicted_iou=float(iou[index]),
                reverse=reverse,
                was_tracked=was_tracked,
            )
            for index in range(len(memory))
        ]

    def _mask_to_logits(self, mask: BoolArray) -> Tensor:
        side = self.model.low_res_size
        pixels = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
        return (2 * resize_smoothly(pixels, (side, side))[0, 0] - 1) * MASK_LOGIT

    def _input_points(self, prompt: Prompt, size_hw: SizeHW) -> tuple[FloatArray | None, IntArray | None]:
        """Convert a prompt to points [N, 2] in pixels of the model's input and labels [N]; box corners come first."""
        points, labels = [], []
        if prompt.box_xyxy is not None:
            points.append(prompt.box_xyxy.reshape(2, 2))
            labels.append(np.array([BOX_TOP_LEFT_LABEL, BOX_BOTTOM_RIGHT_LABEL], dtype=np.int64))
        if prompt.points_xy is not None and prompt.labels is not None:
            points.append(prompt.points_xy)
            labels.append(prompt.labels)
        if not points:
            return None, None
        return self.model.preprocessing.to_input_xy(np.concatenate(points), size_hw), np.concatenate(labels)


def _own_copy(x: Tensor) -> Tensor:
    """Copy a row for the memory bank, since a view would keep the tensor of all objects alive.

    On a CPU the copy is memory-mapped. On the heap, between tensors that live for one frame, it would cause
    fragmentation, and memory would grow with the length of the video.
    """
    if x.device.type != "cpu":
        return x.clone()
    pages = mmap.mmap(-1, x.numel() * x.element_size())
    return torch.frombuffer(pages, dtype=x.dtype).view(x.shape).copy_(x)
