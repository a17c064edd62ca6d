"""What a session knows of one object: its prompts, and what the model remembers of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segany.errors import PromptError
from segany.models.sam2.memory_bank import MemoryPlan, plan_memory
from segany.models.sam2.tracking import ObjectMemory
from segany.predict.motion import MEMORY_IOU, Motion
from segany.types import BoolArray, Prompt, SizeHW

if TYPE_CHECKING:
    from torch import Tensor

    from segany.models.sam2.config import MemoryConfig


@dataclass(frozen=True, eq=False)
class Remembered:
    """One object in one frame.

    Attributes:
        memory: [C_memory, h, w], what later frames attend to.
        pointer: [C], the object pointer.
        low_res: logits [4h, 4w], the answer.
        score: logit of the object being visible.
        iou: predicted IoU of the answer.
        reverse: whether it was tracked backward.
    """

    memory: Tensor
    pointer: Tensor
    low_res: Tensor
    score: float
    iou: float
    reverse: bool = False

    @property
    def is_reliable(self) -> bool:
        """Whether the object was seen well enough for `motion_aware` tracking to remember."""
        return self.iou > MEMORY_IOU and self.score > 0


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
    conditioning: dict[int, Remembered] = field(default_factory=dict)
    tracked: dict[int, Remembered] = field(default_factory=dict)
    motion: Motion = field(default_factory=Motion)

    def recall(
        self, frame: int, config: MemoryConfig, *, reverse: bool, frames_count: int | None, reliable_only: bool
    ) -> ObjectMemory:
        """What a frame attends to."""
        plan = plan_memory(frame, self.conditioning, self.tracked, config, reverse=reverse, frames_count=frames_count)
        if reliable_only:
            plan = self._reliable_plan(plan, frame, config, reverse=reverse)
        known = {**self.tracked, **self.conditioning}
        return ObjectMemory(
            masks=tuple(known[index].memory for index, _ in plan.masks),
            slots=tuple(slot for _, slot in plan.masks),
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
        reliable = (index for index in before if self.tracked[index].is_reliable)
        return sorted(reliable, reverse=not reverse)

    def forget(self, near: Iterable[int], config: MemoryConfig, *, reverse: bool, reliable_only: bool) -> None:
        """Drop what no frame near those given will attend to."""
        reach = max(config.max_pointers, config.slots * config.stride)
        needed = {index for index in self.tracked for frame in near if abs(index - frame) <= reach}
        if reliable_only:
            for frame in near:
                needed.update(self._reliable(frame, reverse=reverse)[: config.slots])
        for index in [index for index in self.tracked if index not in needed]:
            del self.tracked[index]


def join_prompts(earlier: Prompt | BoolArray | None, prompt: Prompt) -> Prompt:
    """Earlier points of the same frame before new ones; a new box instead of an earlier one."""
    if not isinstance(earlier, Prompt):
        return prompt
    points, labels = prompt.points_xy, prompt.labels
    if earlier.points_xy is not None and earlier.labels is not None:
        points = earlier.points_xy if points is None else np.concatenate([earlier.points_xy, points])
        labels = earlier.labels if labels is None else np.concatenate([earlier.labels, labels])
    box = earlier.box_xyxy if prompt.box_xyxy is None else prompt.box_xyxy
    return Prompt(points_xy=points, labels=labels, box_xyxy=box, mask_logits=prompt.mask_logits)


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
