"""The state of one object in a video session: its prompts and its memory bank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import PromptError
from segany.core.instance import Category
from segany.core.prompt import Prompt
from segany.models.sam2.memory_bank import MemorySelection, select_memory
from segany.models.sam2.tracking import ObjectMemory
from segany.predict.motion import MEMORY_IOU, Motion

if TYPE_CHECKING:
    from torch import Tensor

    from segany.models.sam2.config import MemoryConfig


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """The entry of one frame in the memory bank of an object.

    Attributes:
        memory: bfloat16 [C_memory, h, w], from the memory encoder; None if only the pointer is still needed.
        pointer: [C], the object pointer.
        low_res: float32 [4h, 4w], mask logits of the prediction; None if the memory is None.
        object_score: logit of the object being visible.
        predicted_iou: predicted IoU of the mask.
        reverse: whether the object was tracked backward to this frame.
        was_tracked: whether the object was tracked to this frame, possibly before a prompt on it.
    """

    memory: Tensor | None
    pointer: Tensor
    low_res: Tensor | None
    object_score: float
    predicted_iou: float
    reverse: bool = False
    was_tracked: bool = False

    @property
    def is_reliable(self) -> bool:
        """Whether motion-aware tracking may select this memory (SAMURAI, section 4.2)."""
        return self.predicted_iou > MEMORY_IOU and self.object_score > 0


@dataclass(frozen=True, eq=False)
class PreviousOutput:
    """The prediction for an object on a frame before another prompt on that frame.

    Attributes:
        low_res: mask logits [4h, 4w]; None if they are not kept.
        mask: bool [H, W] at the size of the video, if only the stored result is kept; else None.
        was_tracked: whether the object was tracked to this frame, so that the prompt is a correction and the
            frame is conditioned on memory.
        reverse: whether it was tracked backward.
    """

    low_res: Tensor | None = None
    mask: BoolArray | None = None
    was_tracked: bool = False
    reverse: bool = False


@dataclass(eq=False)
class ObjectTrack:
    """One object of a session.

    Attributes:
        prompts: prompts by frame: a `Prompt`, or a mask [H, W].
        conditioning: memory of the conditioning frames, in the order of their prompts.
        tracked: memory of the tracked frames, while it is needed.
        motion: the motion of the object, for `motion_aware` tracking.
        category: the category of the object; None if there is none.
    """

    prompts: dict[int, Prompt | BoolArray] = field(default_factory=dict)
    conditioning: dict[int, FrameMemory] = field(default_factory=dict)
    tracked: dict[int, FrameMemory] = field(default_factory=dict)
    motion: Motion = field(default_factory=Motion)
    category: Category | None = None

    def at(self, frame: int) -> FrameMemory | None:
        """Return the memory of a conditioning or tracked frame; None if there is none."""
        return self.conditioning.get(frame) or self.tracked.get(frame)

    def previous_output(self, frame: int, stored_mask: BoolArray | None, *, stored_reverse: bool) -> PreviousOutput:
        """Return the prediction that a prompt on a frame refines.

        Args:
            frame: the frame.
            stored_mask: bool [H, W], the stored result of the frame, if the memory bank has no logits for it.
            stored_reverse: whether the stored result was tracked backward.
        """
        memory = self.at(frame)
        low_res = None if memory is None else memory.low_res
        if not any(index != frame for index in self.conditioning):
            return PreviousOutput(low_res)
        if stored_mask is not None:
            return PreviousOutput(mask=stored_mask, was_tracked=True, reverse=stored_reverse)
        if memory is None:
            return PreviousOutput()
        return PreviousOutput(low_res, was_tracked=memory.was_tracked, reverse=memory.reverse)

    def gather_memory(
        self, frame: int, config: MemoryConfig, *, reverse: bool, frames_count: int | None, reliable_only: bool
    ) -> ObjectMemory:
        """Gather the memories and object pointers that a frame attends to.

        Args:
            frame: the current frame; its own memory is excluded.
            config: config of the model's memory.
            reverse: whether tracking goes backward.
            frames_count: number of frames of the video; None if it is not known.
            reliable_only: select tracked frames by `FrameMemory.is_reliable`, as SAMURAI does.
        """
        conditioning = {index: one for index, one in self.conditioning.items() if index != frame}
        tracked = {index: one for index, one in self.tracked.items() if index != frame}
        selection = select_memory(frame, conditioning, tracked, config, reverse=reverse, frames_count=frames_count)
        if reliable_only:
            selection = self._only_reliable(selection, frame, config, reverse=reverse)
        bank = {**tracked, **conditioning}
        memories = [(bank[index].memory, tpos) for index, tpos in selection.memories]
        return ObjectMemory(
            memories=tuple(memory for memory, _ in memories if memory is not None),
            maskmem_tpos=tuple(tpos for memory, tpos in memories if memory is not None),
            pointers=tuple(bank[index].pointer for index, _ in selection.pointers),
            pointer_tpos=tuple(tpos for _, tpos in selection.pointers),
        )

    def _only_reliable(
        self, selection: MemorySelection, frame: int, config: MemoryConfig, *, reverse: bool
    ) -> MemorySelection:
        """Replace the tracked frames of a selection by the previous frame and the latest reliable frames."""
        conditioning = tuple(pair for pair in selection.memories if pair[0] in self.conditioning)
        previous = frame + 1 if reverse else frame - 1
        latest = [index for index in self._reliable(frame, reverse=reverse) if index != previous]
        if previous in self.tracked:
            latest.insert(0, previous)
        tracked = tuple((index, tpos) for tpos, index in enumerate(latest[: config.num_maskmem - 1]))
        return MemorySelection(conditioning + tracked, selection.pointers)

    def _reliable(self, frame: int, *, reverse: bool) -> list[int]:
        """Return the reliable tracked frames before `frame` in the direction of tracking, the latest first."""
        before = (index for index in self.tracked if (index > frame if reverse else index < frame))
        with_memory = (index for index in before if self.tracked[index].memory is not None)
        return sorted((index for index in with_memory if self.tracked[index].is_reliable), reverse=not reverse)

    def prune(self, near: Iterable[int], config: MemoryConfig, *, reverse: bool, reliable_only: bool) -> None:
        """Drop memories that neither the frames `near` nor corrections on them can attend to.

        Prompted frames are kept completely. Of the tracked frames within `max_obj_ptrs`, only the pointer is kept.
        """
        whole = set(self.prompts)
        for frame in near:
            reach = config.num_maskmem * config.temporal_stride
            whole.update(index for index in self.tracked if abs(index - frame) <= reach)
            if reliable_only:
                whole.update(self._reliable(frame, reverse=reverse)[: config.num_maskmem])
        for index, one in list(self.tracked.items()):
            if index in whole:
                continue
            if all(abs(index - frame) > config.max_obj_ptrs for frame in near):
                del self.tracked[index]
            elif one.memory is not None:
                self.tracked[index] = replace(one, memory=None, low_res=None)

    def clear(self, frame: int) -> None:
        """Remove the prompts on a frame. If no conditioning frame is left, corrections become conditioning frames."""
        for entries in (self.prompts, self.conditioning, self.tracked):
            entries.pop(frame, None)
        if not self.conditioning:
            self.conditioning = {index: self.tracked.pop(index) for index in self.prompts if index in self.tracked}


def join_prompts(earlier: Prompt | BoolArray | None, prompt: Prompt | BoolArray, size_hw: SizeHW) -> Prompt | BoolArray:
    """Join the prompts of one frame: earlier points before new ones; a new box replaces the earlier one.

    Args:
        earlier: the earlier prompts of the frame; None if there are none.
        prompt: the new prompt.
        size_hw: size of the video.

    Returns:
        Points, a box and a mask as a `Prompt`; or a mask alone, bool [H, W], which replaces all earlier prompts.

    Raises:
        PromptError: the prompt does not fit the video.
    """
    if not isinstance(prompt, Prompt):
        return _checked_mask(prompt, size_hw)
    prompt.check_fits(size_hw)
    points, labels, box = prompt.points_xy, prompt.labels, prompt.box_xyxy
    if points is None and box is None and prompt.mask is not None:
        return prompt.mask
    if not isinstance(earlier, Prompt):
        return prompt
    if earlier.points_xy is not None and earlier.labels is not None:
        points = earlier.points_xy if points is None else np.concatenate([earlier.points_xy, points])
        labels = earlier.labels if labels is None else np.concatenate([earlier.labels, labels])
    box = earlier.box_xyxy if box is None else box
    return Prompt(points_xy=points, labels=labels, box_xyxy=box, mask_logits=prompt.mask_logits, mask=prompt.mask)


def _checked_mask(mask: BoolArray, size_hw: SizeHW) -> BoolArray:
    """Copy a mask prompt. Raises `PromptError` if it is not bool [H, W] at the size of the video."""
    given = np.asarray(mask)
    if given.dtype != np.bool_ or given.shape != size_hw:
        raise PromptError(
            f"A mask prompt must be bool [{size_hw[0]}, {size_hw[1]}], the size of the video, "
            f"got {given.dtype} {list(given.shape)}."
        )
    copy: BoolArray = given.copy()
    return copy
