"""The memory bank: which frames a frame attends to, as rules over frame numbers (SAM 2, section 4).

A frame of an object is a *conditioning frame* where the object was prompted, and a *tracked frame* (officially a
non-conditioning one) where the model predicted the object from memory. Only frames with a memory take part.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from segany.models.sam2.config import MemoryConfig


@dataclass(frozen=True)
class MemorySelection:
    """What one frame attends to in the memory bank of one object.

    Attributes:
        memories: pairs of a frame and its temporal position (`maskmem_tpos`), whose memories are attended to.
            Position 0 is the frame just before, 1 the one before that, and so on; the last position is that of
            conditioning frames, at any distance.
        pointers: pairs of a frame and its temporal position, whose object pointers are attended to. The
            position is the distance in frames in the direction of tracking, divided by the largest one.
    """

    memories: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, float], ...]

    @property
    def frames(self) -> frozenset[int]:
        """All frames that are attended to."""
        return frozenset(frame for frame, _ in (*self.memories, *self.pointers))


def select_memory(
    frame: int,
    conditioning: Collection[int],
    tracked: Collection[int],
    config: MemoryConfig,
    *,
    reverse: bool = False,
    frames_count: int | None = None,
) -> MemorySelection:
    """Select what the official model attends to for one object in one frame.

    Args:
        frame: the current frame.
        conditioning: conditioning frames of the object, in the order of their prompts; at least one.
        tracked: tracked frames of the object.
        config: the memory of the model.
        reverse: whether tracking goes backward in time.
        frames_count: frames of the video; None where that is not known, as with a camera. It matters only
            in videos of fewer frames than `max_obj_ptrs`.
    """
    chosen = select_closest_cond_frames(frame, conditioning, config.max_cond_frames)
    left_out = set(conditioning) - set(chosen)
    available = {*tracked, *left_out}
    memories = [(index, config.num_maskmem - 1) for index in chosen]
    for steps in range(config.num_maskmem - 1, 0, -1):
        index = _steps_back(frame, steps, config.temporal_stride, reverse=reverse)
        if index in available:
            memories.append((index, steps - 1))
    return MemorySelection(tuple(memories), _select_pointers(frame, chosen, available, config, reverse, frames_count))


def select_closest_cond_frames(frame: int, conditioning: Collection[int], most: int | None) -> list[int]:
    """At most that many conditioning frames: the closest one on each side, then the closest of the others."""
    if most is None or len(conditioning) <= most:
        return list(conditioning)
    before = max((index for index in conditioning if index < frame), default=None)
    after = min((index for index in conditioning if index >= frame), default=None)
    chosen = [index for index in (before, after) if index is not None]
    others = sorted((index for index in conditioning if index not in chosen), key=lambda index: abs(index - frame))
    return chosen + others[: most - len(chosen)]


def _steps_back(frame: int, steps: int, stride: int, *, reverse: bool) -> int:
    """The frame that many steps before, in the direction of tracking: the last frame, then every `stride`-th."""
    if reverse:
        return frame + 1 if steps == 1 else -(-(frame + 2) // stride) * stride + (steps - 2) * stride
    return frame - 1 if steps == 1 else (frame - 2) // stride * stride - (steps - 2) * stride


def _select_pointers(
    frame: int,
    chosen: list[int],
    available: Collection[int],
    config: MemoryConfig,
    reverse: bool,
    frames_count: int | None,
) -> tuple[tuple[int, float], ...]:
    """Object pointers of conditioning frames in the past, and of the frames just before."""
    most = config.max_obj_ptrs if frames_count is None else min(frames_count, config.max_obj_ptrs)
    direction = -1 if reverse else 1
    largest = max(most - 1, 1)
    distances = [(index, (frame - index) * direction) for index in chosen if (frame - index) * direction >= 0]
    for distance in range(1, most):
        index = frame - distance * direction
        if index in available:
            distances.append((index, distance))
    return tuple((index, distance / largest) for index, distance in distances)
