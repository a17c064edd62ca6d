"""The rules are those of the official code, with which they were compared on thousands of random videos."""

from __future__ import annotations

import pytest

from segany.models.sam2.config import MemoryConfig
from segany.models.sam2.memory_bank import select_closest_cond_frames, select_memory

MEMORY = MemoryConfig()


def test_the_prompted_frame_and_the_six_before() -> None:
    selection = select_memory(20, [3], range(4, 20), MEMORY)
    assert selection.memories == ((3, 6), (14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0))
    assert selection.pointers[0] == (3, 17 / 15)
    assert selection.pointers[1:] == tuple((20 - distance, distance / 15) for distance in range(1, 16))
    assert selection.frames == {3, *range(5, 20)}


def test_backward_is_forward_in_a_mirror() -> None:
    forward = select_memory(20, [3, 25], range(4, 20), MEMORY)
    backward = select_memory(-20, [-3, -25], [-frame for frame in range(4, 20)], MEMORY, reverse=True)
    assert backward.memories == tuple((-frame, tpos) for frame, tpos in forward.memories)
    assert backward.pointers == tuple((-frame, tpos) for frame, tpos in forward.pointers)


def test_prompted_frames_ahead_are_seen_but_not_pointed_to() -> None:
    selection = select_memory(5, [0, 9], range(1, 5), MEMORY)
    assert {(0, 6), (9, 6)} <= set(selection.memories)
    assert 9 not in {frame for frame, _ in selection.pointers}


def test_frames_that_were_not_tracked_leave_gaps() -> None:
    selection = select_memory(10, [0], [7, 9], MEMORY)
    assert selection.memories == ((0, 6), (7, 2), (9, 0))
    assert [frame for frame, _ in selection.pointers] == [0, 9, 7]


def test_a_conditioning_frame_too_many_counts_as_tracked() -> None:
    memory = MemoryConfig(max_cond_frames=2)
    selection = select_memory(10, [0, 7, 9, 30], [8], memory)
    assert selection.memories == ((9, 6), (30, 6), (7, 2), (8, 1))
    assert {frame for frame, _ in selection.pointers} == {9, 8, 7, 0}


@pytest.mark.parametrize(
    ("most", "expected"),
    [(None, [8, 2, 5, 0]), (4, [8, 2, 5, 0]), (3, [5, 8, 2]), (2, [5, 8])],
)
def test_nearest_conditioning(most: int | None, expected: list[int]) -> None:
    assert select_closest_cond_frames(6, [8, 2, 5, 0], most) == expected


def test_nearest_conditioning_on_one_side() -> None:
    assert select_closest_cond_frames(1, [8, 2, 5], 2) == [2, 5]
    assert select_closest_cond_frames(9, [8, 2, 5], 2) == [8, 5]


def test_a_stride_skips_frames_but_the_last() -> None:
    selection = select_memory(20, [0], range(1, 20), MemoryConfig(temporal_stride=4))
    assert selection.memories == ((0, 6), (4, 4), (8, 3), (12, 2), (16, 1), (19, 0))
    selection = select_memory(10, [30], range(11, 30), MemoryConfig(temporal_stride=4), reverse=True)
    assert selection.memories == ((30, 6), (28, 5), (24, 4), (20, 3), (16, 2), (12, 1), (11, 0))


def test_short_videos_stretch_the_times() -> None:
    assert select_memory(2, [0], [1], MEMORY, frames_count=4).pointers == ((0, 2 / 3), (1, 1 / 3))
    assert select_memory(2, [0], [1], MEMORY).pointers == ((0, 2 / 15), (1, 1 / 15))
