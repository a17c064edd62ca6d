"""Which frames a frame remembers: pure rules over frame indices (SAM 2, section 4, "Memory bank").

A frame of an object is *conditioning* where it was prompted, and *tracked* where the model found the object
by itself. Only frames that were processed, and so have a memory, count.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from segany.models.sam2.config import MemoryConfig


@dataclass(frozen=True)
class MemoryPlan:
    """What one frame attends to of one object.

    Attributes:
        masks: pairs of a frame and its slot in time, whose memories are attended to: 0 the frame just
            before, 1 the one before that, ...; the last slot is for conditioning frames, however far away.
        pointers: pairs of a frame and its time, whose object pointers are attended to. The time is the
            distance as a share of the largest one; negative behind the frame, seen in the direction of
            tracking.
    """

    masks: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, float], ...]

    @property
    def frames(self) -> frozenset[int]:
        """All frames that are attended to."""
        return frozenset(frame for frame, _ in (*self.masks, *self.pointers))


def plan_memory(
    frame: int,
    conditioning: Collection[int],
    tracked: Collection[int],
    config: MemoryConfig,
    *,
    reverse: bool = False,
    frames_count: int | None = None,
) -> MemoryPlan:
    """What the official model attends to for one object in one frame.

    Args:
        frame: the frame to be conditioned.
        conditioning: frames of the object that were prompted, in the order of their prompts; at least one.
        tracked: frames of the object that were tracked.
        config: of the model's memory.
        reverse: whether tracking goes back in time.
        frames_count: frames of the video; None where that is not known, as with a camera. It matters only
            in videos of fewer frames than there are object pointers.
    """
    chosen = nearest_conditioning(frame, conditioning, config.max_conditioning)
    left_out = set(conditioning) - set(chosen)
    available = {*tracked, *left_out}
    masks = [(index, config.slots - 1) for index in chosen]
    for steps in range(config.slots - 1, 0, -1):
        index = _steps_back(frame, steps, config.stride, reverse=reverse)
        if index in available:
            masks.append((index, steps - 1))
    return MemoryPlan(tuple(masks), _plan_pointers(frame, chosen, available, config, reverse, frames_count))


def nearest_conditioning(frame: int, conditioning: Collection[int], most: int | None) -> list[int]:
    """At most that many conditioning frames: the nearest on each side, then the nearest of the others."""
    if most is None or len(conditioning) <= most:
        return list(conditioning)
    before = max((index for index in conditioning if index < frame), default=None)
    after = min((index for index in conditioning if index >= frame), default=None)
    chosen = [index for index in (before, after) if index is not None]
    others = sorted((index for index in conditioning if index not in chosen), key=lambda index: abs(index - frame))
    return chosen + others[: most - len(chosen)]


def _steps_back(frame: int, steps: int, stride: int, *, reverse: bool) -> int:
    """The frame that many steps before in the direction of tracking: the last frame, then every `stride`-th."""
    if reverse:
        return frame + 1 if steps == 1 else -(-(frame + 2) // stride) * stride + (steps - 2) * stride
    return frame - 1 if steps == 1 else (frame - 2) // stride * stride - (steps - 2) * stride


def _plan_pointers(
    frame: int,
    chosen: list[int],
    available: Collection[int],
    config: MemoryConfig,
    reverse: bool,
    frames_count: int | None,
) -> tuple[tuple[int, float], ...]:
    """Pointers of conditioning frames in the past, and of the frames just before."""
    most = config.max_pointers if frames_count is None else min(frames_count, config.max_pointers)
    direction = -1 if reverse else 1
    largest = max(most - 1, 1)
    distances = [(index, (frame - index) * direction) for index in chosen if (frame - index) * direction >= 0]
    for distance in range(1, most):
        index = frame - distance * direction
        if index in available:
            distances.append((index, distance))
    return tuple((index, distance / largest) for index, distance in distances)
