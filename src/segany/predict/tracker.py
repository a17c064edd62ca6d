"""The steps of tracking: what the model says about objects in one frame, from prompts or from what it remembers."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segany.core.arrays import BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.prompt import BOX_BOTTOM_RIGHT_LABEL, BOX_TOP_LEFT_LABEL, Prompt
from segany.imaging.interpolate import resize_mask, resize_smoothly
from segany.imaging.prompt_masks import prompt_mask_logits
from segany.models.sam2.model import MASK_LOGIT
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory
from segany.predict.object_track import Before, FrameMemory, ObjectTrack

if TYPE_CHECKING:
    from segany.models.sam2.model import Sam2
    from segany.predict.video import VideoConfig


class FrameContext(NamedTuple):
    """Where tracking is.

    Attributes:
        frame: number of the frame.
        size_hw: of the video.
        frames_count: of the video; None where it is not known.
        reverse: whether tracking goes backward.
    """

    frame: int
    size_hw: SizeHW
    frames_count: int | None
    reverse: bool


class Tracker:
    """A model of the SAM 2 family with the settings of tracking. It keeps nothing between calls."""

    def __init__(self, model: Sam2, config: VideoConfig) -> None:
        self.model = model
        self.config = config

    @torch.inference_mode()
    def encode(self, pixels: PixelArray) -> FrameFeatures:
        """A frame, uint8 [H, W, 3], as the model sees it."""
        return self.model.encode_frame(self.model.preprocess_frame(pixels))

    @torch.inference_mode()
    def answer(
        self,
        features: FrameFeatures,
        moment: FrameContext,
        track: ObjectTrack,
        prompt: Prompt,
        before: Before,
    ) -> FrameMemory:
        """The best mask for a prompt.

        Args:
            features: of the frame.
            moment: where it is.
            track: the object.
            prompt: all that was said about the object on this frame.
            before: what is known of the object in this frame.
        """
        moment = moment._replace(reverse=before.reverse)
        conditioned = None
        if before.was_followed:
            conditioned = self.model.attend_memory(features, [self._recall(track, moment)])
        mask_logits = prompt_mask_logits(prompt, self.model.preprocessing, self.model.low_res_size)
        if mask_logits is not None:
            logits: Tensor | None = torch.tensor(mask_logits)
        elif before.outline is not None:
            logits = self._outline_logits(before.outline)
        else:
            logits = None if before.remembered is None else before.remembered.low_res
        points, labels = self._input_points(prompt, moment.size_hw)
        masks = self.model.decode_frame(
            features,
            conditioned,
            None if points is None else torch.tensor(points, device=self.model.device)[None],
            None if labels is None else torch.tensor(labels, device=self.model.device)[None],
            None if logits is None else logits.to(device=self.model.device, dtype=self.model.dtype)[None],
        )
        binarize = self.config.binarize_prompted
        return self._remember(
            features, masks.best(), binarize=binarize, reverse=before.reverse, followed=before.was_followed
        )[0]

    @torch.inference_mode()
    def use_mask(self, features: FrameFeatures, mask: BoolArray) -> FrameMemory:
        """A mask [H, W] that was given, as the answer."""
        square = resize_mask(mask, self.model.preprocessing.input_size)
        masks = torch.from_numpy(square[None].astype(np.float32)).to(self.model.device)
        found = self.model.use_masks(features, masks)
        return self._remember(features, found, binarize=self.config.binarize_prompted, reverse=False, followed=False)[0]

    @torch.inference_mode()
    def follow(self, features: FrameFeatures, moment: FrameContext, tracks: Sequence[ObjectTrack]) -> list[FrameMemory]:
        """Objects in a frame by what is remembered of them, all together."""
        conditioned = self.model.attend_memory(features, [self._recall(track, moment) for track in tracks])
        masks = self._chosen(self.model.decode_frame(features, conditioned), tracks)
        return self._remember(features, masks, binarize=False, reverse=moment.reverse, followed=True)

    def low_res(self, known: Sequence[FrameMemory]) -> FloatArray:
        """Answers for O objects as logits [1, O, 4h, 4w]."""
        side = self.model.low_res_size
        low_res = np.empty((1, len(known), side, side), dtype=np.float32)
        for row, one in zip(low_res[0], known, strict=True):
            assert one.low_res is not None  # it has just been computed, or was prompted
            row[:] = one.low_res.cpu().numpy()
        return low_res

    def _recall(self, track: ObjectTrack, moment: FrameContext) -> ObjectMemory:
        return track.recall(
            moment.frame,
            self.model.config.memory,
            reverse=moment.reverse,
            frames_count=moment.frames_count,
            reliable_only=self.config.motion_aware,
        )

    def _chosen(self, masks: ObjectMasks, tracks: Sequence[ObjectTrack]) -> ObjectMasks:
        """One candidate of each object."""
        if not self.config.motion_aware or masks.iou.shape[1] == 1:
            return masks.best()
        low_res, iou = masks.low_res.float().cpu().numpy(), masks.iou.float().cpu().numpy()
        chosen = [track.motion.choose(*pair) for track, *pair in zip(tracks, low_res, iou, strict=True)]
        return masks.choose(torch.tensor(chosen, device=masks.iou.device))

    def _remember(
        self, features: FrameFeatures, masks: ObjectMasks, *, binarize: bool, reverse: bool, followed: bool
    ) -> list[FrameMemory]:
        """One entry an object, of its chosen candidate."""
        memory = self.model.encode_memory(features, masks.low_res[:, 0], masks.object_scores, binarize=binarize)
        memory = memory.bfloat16()  # as the official code keeps it
        scores, iou = masks.object_scores.float().cpu(), masks.iou[:, 0].float().cpu()
        return [
            FrameMemory(
                memory=_kept_apart(memory[index]),
                pointer=_kept_apart(masks.pointers[index, 0]),
                low_res=_kept_apart(masks.low_res[index, 0].float()),
                score=float(scores[index]),
                iou=float(iou[index]),
                reverse=reverse,
                followed=followed,
            )
            for index in range(len(memory))
        ]

    def _outline_logits(self, mask: BoolArray) -> Tensor:
        side = self.model.low_res_size
        pixels = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
        return (2 * resize_smoothly(pixels, (side, side))[0, 0] - 1) * MASK_LOGIT

    def _input_points(self, prompt: Prompt, size_hw: SizeHW) -> tuple[FloatArray | None, IntArray | None]:
        """Points and labels in the frame of the model's input, a box as two of them before the others."""
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


def _kept_apart(x: Tensor) -> Tensor:
    """A copy for long: a row would keep all objects of its frame.

    On a CPU it has pages of its own. Were it on the heap, between what is only needed for a moment, the heap
    would have holes after some frames, and the process would grow.
    """
    if x.device.type != "cpu":
        return x.clone()
    pages = mmap.mmap(-1, x.numel() * x.element_size())
    return torch.frombuffer(pages, dtype=x.dtype).view(x.shape).copy_(x)
