"""What a session knows of one object: its prompts, and what the model remembers of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import PromptError
from segany.core.prompt import Prompt
from segany.models.sam2.memory_bank import MemoryPlan, plan_memory
from segany.models.sam2.tracking import ObjectMemory
from segany.predict.motion import MEMORY_IOU, Motion

if TYPE_CHECKING:
    from torch import Tensor

    from segany.models.sam2.config import MemoryConfig


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """One object in one frame.

    Attributes:
        memory: [C_memory, h, w], what later frames attend to; None where only the pointer is still needed.
        pointer: [C], the object pointer.
        low_res: logits [4h, 4w], the answer; None as for the memory.
        score: logit of the object being visible.
        iou: predicted IoU of the answer.
        reverse: whether it was tracked backward.
        followed: whether the object was followed to this frame, before it was prompted there if it was.
    """

    memory: Tensor | None
    pointer: Tensor
    low_res: Tensor | None
    score: float
    iou: float
    reverse: bool = False
    followed: bool = False

    @property
    def is_reliable(self) -> bool:
        """Whether the object was seen well enough for `motion_aware` tracking to remember."""
        return self.iou > MEMORY_IOU and self.score > 0


class Before(NamedTuple):
    """What is known of an object in a frame before it is prompted there.

    Attributes:
        remembered: all of it.
        outline: the mask [H, W], where nothing more is known.
        was_followed: whether the object was followed to this frame, so that the prompt corrects it.
        reverse: whether that was backward.
    """

    remembered: FrameMemory | None
    outline: BoolArray | None
    was_followed: bool
    reverse: bool


@dataclass(eq=False)
class ObjectTrack:
    """One object of a session.

    Attributes:
        prompts: by frame, a prompt or a mask [H, W].
        conditioning: what is remembered of the frames that were prompted, in the order of the prompts.
        tracked: the same of frames the object was followed to, as far as it is still needed.
        motion: how the object moves, where that is asked for.
    """

    prompts: dict[int, Prompt | BoolArray] = field(default_factory=dict)
    conditioning: dict[int, FrameMemory] = field(default_factory=dict)
    tracked: dict[int, FrameMemory] = field(default_factory=dict)
    motion: Motion = field(default_factory=Motion)

    def recall(
        self, frame: int, config: MemoryConfig, *, reverse: bool, frames_count: int | None, reliable_only: bool
    ) -> ObjectMemory:
        """What a frame attends to."""
        conditioning = {index: one for index, one in self.conditioning.items() if index != frame}
        tracked = {index: one for index, one in self.tracked.items() if index != frame}
        plan = plan_memory(frame, conditioning, tracked, config, reverse=reverse, frames_count=frames_count)
        if reliable_only:
            plan = self._reliable_plan(plan, frame, config, reverse=reverse)
        known = {**tracked, **conditioning}
        masks = [(known[index].memory, slot) for index, slot in plan.masks]
        return ObjectMemory(
            masks=tuple(memory for memory, _ in masks if memory is not None),
            slots=tuple(slot for memory, slot in masks if memory is not None),
            pointers=tuple(known[index].pointer for index, _ in plan.pointers),
            times=tuple(time for _, time in plan.pointers),
        )

    def _reliable_plan(self, plan: MemoryPlan, frame: int, config: MemoryConfig, *, reverse: bool) -> MemoryPlan:
        """The plan with the latest frames in which the object was seen well, and the very last one."""
        conditioning = tuple(pair for pair in plan.masks if pair[0] in self.conditioning)
        direction = -1 if reverse else 1
        latest = [index for index in self._reliable(frame, reverse=reverse) if index != frame - direction]
        if frame - direction in self.tracked:
            latest.insert(0, frame - direction)
        slots = tuple((index, slot) for slot, index in enumerate(latest[: config.slots - 1]))
        return MemoryPlan(conditioning + slots, plan.pointers)

    def _reliable(self, frame: int, *, reverse: bool) -> list[int]:
        """Tracked frames before one, in the direction of tracking, that are worth remembering; the latest first."""
        before = (index for index in self.tracked if (index > frame if reverse else index < frame))
        kept = (index for index in before if self.tracked[index].memory is not None)
        return sorted((index for index in kept if self.tracked[index].is_reliable), reverse=not reverse)

    def forget(self, near: Iterable[int], config: MemoryConfig, *, reverse: bool, reliable_only: bool) -> None:
        """Drop what no frame near those given will attend to, nor a correction of one needs."""
        whole = set(self.prompts)
        for frame in near:
            whole.update(index for index in self.tracked if abs(index - frame) <= config.slots * config.stride)
            if reliable_only:
                whole.update(self._reliable(frame, reverse=reverse)[: config.slots])
        for index, one in list(self.tracked.items()):
            if index in whole:
                continue
            if all(abs(index - frame) > config.max_pointers for frame in near):
                del self.tracked[index]
            elif one.memory is not None:
                self.tracked[index] = replace(one, memory=None, low_res=None)

    def clear(self, frame: int) -> None:
        """Take back the prompts on a frame. Corrections that are left become first prompts where there is no other."""
        for entries in (self.prompts, self.conditioning, self.tracked):
            entries.pop(frame, None)
        if not self.conditioning:
            self.conditioning = {index: self.tracked.pop(index) for index in self.prompts if index in self.tracked}


def join_prompts(earlier: Prompt | BoolArray | None, prompt: Prompt) -> Prompt:
    """Earlier points of the same frame before new ones; a new box instead of an earlier one."""
    if not isinstance(earlier, Prompt):
        return prompt
    points, labels = prompt.points_xy, prompt.labels
    if earlier.points_xy is not None and earlier.labels is not None:
        points = earlier.points_xy if points is None else np.concatenate([earlier.points_xy, points])
        labels = earlier.labels if labels is None else np.concatenate([earlier.labels, labels])
    box = earlier.box_xyxy if prompt.box_xyxy is None else prompt.box_xyxy
    return Prompt(points_xy=points, labels=labels, box_xyxy=box, mask_logits=prompt.mask_logits, mask=prompt.mask)


def checked_mask(mask: BoolArray, size_hw: SizeHW) -> BoolArray:
    """A copy of a mask prompt, or a `PromptError` where it is not bool [H, W] at the size of the video."""
    given = np.asarray(mask)
    if given.dtype != np.bool_ or given.shape != size_hw:
        raise PromptError(
            f"A mask prompt must be bool [{size_hw[0]}, {size_hw[1]}], the size of the video, "
            f"got {given.dtype} {list(given.shape)}."
        )
    copy: BoolArray = given.copy()
    return copy


def check_mask_size(prompt: Prompt, side: int) -> None:
    """Raise `PromptError` where low-res logits are not of the model's size."""
    if prompt.mask_logits is not None and prompt.mask_logits.shape != (side, side):
        raise PromptError(f"mask_logits must be [{side}, {side}] for this model, got {list(prompt.mask_logits.shape)}.")
