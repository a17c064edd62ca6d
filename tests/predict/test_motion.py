from __future__ import annotations

import numpy as np
import pytest
import torch

from segany.models.sam2.config import MemoryConfig
from segany.predict.motion import STABLE_FRAMES, KalmanBoxFilter, Motion
from segany.predict.object_track import FrameMemory, ObjectTrack


def box_at(index: float) -> np.ndarray:
    return np.array([10 + 3 * index, 20 + index, 40 + 3 * index, 50 + index], dtype=np.float32)


def logits_at(*boxes: np.ndarray) -> np.ndarray:
    """A mask that fills each box, [M, 128, 160]."""
    logits = np.full((len(boxes), 128, 160), -8, dtype=np.float32)
    for mask, (left, top, right, bottom) in zip(logits, np.asarray(boxes, dtype=int), strict=True):
        mask[top:bottom, left:right] = 8
    return logits


def test_a_filter_learns_a_constant_velocity() -> None:
    box_filter = KalmanBoxFilter(box_at(0))
    for index in range(1, 30):
        expected = box_filter.predict()
        box_filter.update(box_at(index))
    np.testing.assert_allclose(expected, box_at(29), atol=0.5)
    np.testing.assert_allclose(box_filter.predict(), box_at(30), atol=0.5)
    np.testing.assert_allclose(box_filter.predict(), box_at(31), atol=0.7)  # without another look


def test_where_the_object_should_be_outweighs_a_slightly_better_mask() -> None:
    motion = Motion()
    for index in range(STABLE_FRAMES + 5):
        assert motion.choose(logits_at(box_at(index)), np.array([0.9], dtype=np.float32)) == 0
    index = STABLE_FRAMES + 5
    candidates = logits_at(box_at(0), box_at(index))  # a twin that stays behind looks a little better
    assert motion.choose(candidates, np.array([0.85, 0.8], dtype=np.float32)) == 1
    assert motion.choose(logits_at(box_at(0), box_at(index + 1)), np.array([0.99, 0.3], dtype=np.float32)) == 0


def test_motion_counts_only_after_the_object_was_seen_for_long_enough() -> None:
    motion = Motion()
    for index in range(STABLE_FRAMES - 3):
        motion.choose(logits_at(box_at(index)), np.array([0.9], dtype=np.float32))
    candidates = logits_at(box_at(0), box_at(STABLE_FRAMES - 3))
    assert motion.choose(candidates, np.array([0.85, 0.8], dtype=np.float32)) == 0


@pytest.mark.parametrize("lost", ["unsure", "empty"])
def test_a_lost_object_starts_anew(lost: str) -> None:
    motion = Motion()
    for index in range(STABLE_FRAMES + 5):
        motion.choose(logits_at(box_at(index)), np.array([0.9], dtype=np.float32))
    index = STABLE_FRAMES + 5
    if lost == "unsure":
        motion.choose(logits_at(box_at(index)), np.array([0.1], dtype=np.float32))
    else:
        motion.choose(np.full((1, 128, 160), -8, dtype=np.float32), np.array([0.9], dtype=np.float32))
    candidates = logits_at(box_at(0), box_at(index + 1))
    assert motion.choose(candidates, np.array([0.85, 0.8], dtype=np.float32)) == 0


def remembered(frame: int, iou: float = 0.9, score: float = 3.0) -> FrameMemory:
    """Tells by its numbers which frame it is of."""
    return FrameMemory(
        torch.full((4, 2, 2), float(frame)), torch.full((4,), float(frame)), torch.zeros(4, 4), score, iou
    )


def frames_of(track: ObjectTrack, frame: int, *, reliable_only: bool, reverse: bool = False) -> list[tuple[int, int]]:
    memory = track.gather_memory(frame, MemoryConfig(), reverse=reverse, frames_count=100, reliable_only=reliable_only)
    return [(int(mask[0, 0, 0]), tpos) for mask, tpos in zip(memory.memories, memory.maskmem_tpos, strict=True)]


def test_only_frames_in_which_the_object_was_seen_well_are_remembered() -> None:
    track = ObjectTrack(conditioning={0: remembered(0)})
    track.tracked = {frame: remembered(frame) for frame in range(1, 12)}
    track.tracked |= {9: remembered(9, iou=0.4), 8: remembered(8, score=-1), 11: remembered(11, iou=0.1)}
    assert frames_of(track, 12, reliable_only=False)[0] == (0, 6)
    assert sorted(frames_of(track, 12, reliable_only=False)[1:]) == [(frame, 11 - frame) for frame in range(6, 12)]
    # The very last frame always counts; then 10, 7, 6, ...
    assert frames_of(track, 12, reliable_only=True) == [(0, 6), (11, 0), (10, 1), (7, 2), (6, 3), (5, 4), (4, 5)]


def test_backward_the_later_frames_are_the_past() -> None:
    track = ObjectTrack(conditioning={20: remembered(20)})
    track.tracked = {frame: remembered(frame, iou=0.4 if frame == 13 else 0.9) for frame in range(11, 20)}
    expected = [(20, 6), (11, 0), (12, 1), (14, 2), (15, 3), (16, 4), (17, 5)]
    assert frames_of(track, 10, reliable_only=True, reverse=True) == expected


def test_what_is_seen_well_is_kept_however_long_ago() -> None:
    track = ObjectTrack(conditioning={0: remembered(0)})
    for frame in range(1, 80):
        track.tracked[frame] = remembered(frame, iou=0.9 if frame < 10 else 0.1)
        track.prune([frame], MemoryConfig(), reverse=False, reliable_only=True)
    assert set(range(4, 10)) <= set(track.tracked)
    assert len(track.tracked) < 30
    track.prune([79], MemoryConfig(), reverse=False, reliable_only=False)
    assert min(track.tracked) >= 79 - 16


def test_far_frames_keep_only_their_pointers() -> None:
    track = ObjectTrack(conditioning={0: remembered(0)}, prompts={0: np.zeros((2, 2), dtype=bool)})
    for frame in range(1, 80):
        track.tracked[frame] = remembered(frame)
        track.prune([0, frame], MemoryConfig(), reverse=False, reliable_only=False)
    whole = [frame for frame, one in track.tracked.items() if one.memory is not None]
    assert whole == [*range(1, 8), *range(72, 80)]
    assert sorted(track.tracked) == [*range(1, 17), *range(63, 80)]
    memory = track.gather_memory(80, MemoryConfig(), reverse=False, frames_count=100, reliable_only=False)
    assert len(memory.memories) == 7
    assert len(memory.pointers) == 16
    # A gap of memories where tracking begins anew between them.
    assert (
        len(track.gather_memory(70, MemoryConfig(), reverse=False, frames_count=100, reliable_only=False).memories) == 1
    )
