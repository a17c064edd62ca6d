"""The steps of tracking: what the model says about objects in one frame, from prompts or from what it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segany.models.sam2.model import MASK_LOGIT
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory
from segany.ops.interpolate import resize_mask, resize_smoothly
from segany.predict.object_track import ObjectTrack, Remembered
from segany.types import (
    BOX_BOTTOM_RIGHT_LABEL,
    BOX_TOP_LEFT_LABEL,
    BoolArray,
    FloatArray,
    IntArray,
    PixelArray,
    Prompt,
    SizeHW,
)

if TYPE_CHECKING:
    from segany.models.sam2.model import Sam2
    from segany.predict.video import VideoConfig


class Moment(NamedTuple):
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
        moment: Moment,
        track: ObjectTrack,
        prompt: Prompt,
        outline: BoolArray | None,
        was_tracked: bool,
    ) -> Remembered:
        """The best mask for a prompt.

        Args:
            features: of the frame.
            moment: where it is.
            track: the object.
            prompt: all that was said about the object on this frame.
            outline: the object's mask from earlier, where nothing more is known.
            was_tracked: whether the object was followed to this frame, so that the prompt corrects it.
        """
        before = track.conditioning.get(moment.frame) or track.tracked.get(moment.frame)
        moment = moment._replace(reverse=before is not None and before.reverse)
        conditioned = self.model.attend_memory(features, [self._recall(track, moment)]) if was_tracked else None
        if prompt.mask_logits is not None:
            logits: Tensor | None = torch.tensor(prompt.mask_logits)
        elif before is not None:
            logits = before.low_res
        else:
            logits = None if outline is None else self._outline_logits(outline)
        points, labels = self._input_points(prompt, moment.size_hw)
        masks = self.model.decode_frame(
            features,
            conditioned,
            None if points is None else torch.tensor(points, device=self.model.device)[None],
            None if labels is None else torch.tensor(labels, device=self.model.device)[None],
            None if logits is None else logits.to(device=self.model.device, dtype=self.model.dtype)[None],
        )
        return self._remember(features, masks.best(), binarise=self.config.binarise_prompted, reverse=moment.reverse)[0]

    @torch.inference_mode()
    def use_mask(self, features: FrameFeatures, mask: BoolArray) -> Remembered:
        """A mask [H, W] that was given, as the answer."""
        square = resize_mask(mask, self.model.preprocessing.input_size)
        masks = torch.from_numpy(square[None].astype(np.float32)).to(self.model.device)
        found = self.model.use_masks(features, masks)
        return self._remember(features, found, binarise=self.config.binarise_prompted, reverse=False)[0]

    @torch.inference_mode()
    def follow(self, features: FrameFeatures, moment: Moment, tracks: Sequence[ObjectTrack]) -> list[Remembered]:
        """Objects in a frame by what is remembered of them, all together."""
        conditioned = self.model.attend_memory(features, [self._recall(track, moment) for track in tracks])
        masks = self._chosen(self.model.decode_frame(features, conditioned), tracks)
        return self._remember(features, masks, binarise=False, reverse=moment.reverse)

    def low_res(self, known: Sequence[Remembered]) -> FloatArray:
        """Answers for O objects as logits [1, O, 4h, 4w]."""
        side = self.model.low_res_size
        low_res = np.empty((1, len(known), side, side), dtype=np.float32)
        for row, one in zip(low_res[0], known, strict=True):
            row[:] = one.low_res.cpu().numpy()
        return low_res

    def _recall(self, track: ObjectTrack, moment: Moment) -> ObjectMemory:
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
        self, features: FrameFeatures, masks: ObjectMasks, *, binarise: bool, reverse: bool
    ) -> list[Remembered]:
        """One entry an object, of its chosen candidate."""
        memory = self.model.encode_memory(features, masks.low_res[:, 0], masks.object_scores, binarise=binarise)
        memory = memory.bfloat16()  # as the official code keeps it
        scores, iou = masks.object_scores.float().cpu(), masks.iou[:, 0].float().cpu()
        return [
            # Copies: a row would keep all objects of its frame.
            Remembered(
                memory=memory[index].clone(),
                pointer=masks.pointers[index, 0].clone(),
                low_res=masks.low_res[index, 0].float().clone(),
                score=float(scores[index]),
                iou=float(iou[index]),
                reverse=reverse,
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
