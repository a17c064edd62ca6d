from __future__ import annotations

import pytest

from segany import PromptError
from segany.predict.frame_schedule import Direction, plan_frame_schedule


@pytest.mark.parametrize(
    ("start", "direction", "end", "frames"),
    [
        (3, "forward", None, [3, 4, 5]),
        (3, "forward", 4, [3, 4]),
        (5, "forward", 5, [5]),
        (3, "backward", None, [3, 2, 1, 0]),
        (3, "backward", 2, [3, 2]),
        (0, "backward", None, [0]),
        (2, "both", None, [2, 3, 4, 5, 1, 0]),
        (2, "both", 3, [2, 3, 1, 0]),
        (0, "both", None, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_frames_in_order(start: int, direction: Direction, end: int | None, frames: list[int]) -> None:
    ranges, total = plan_frame_schedule(start, direction, end, 6)
    assert [frame for part in ranges for frame in part.numbers()] == frames
    assert total == len(frames)


def test_without_a_known_end() -> None:
    ranges, total = plan_frame_schedule(3, "forward", None, None)
    frames = ranges[0].numbers()
    assert [next(frames) for _ in range(4)] == [3, 4, 5, 6]
    assert total is None
    assert plan_frame_schedule(3, "forward", 9, None)[1] == 7


def test_mistakes() -> None:
    with pytest.raises(PromptError, match="never reaches frame 2"):
        plan_frame_schedule(3, "forward", 2, 6)
    with pytest.raises(PromptError, match="never reaches frame 4"):
        plan_frame_schedule(3, "backward", 4, 6)
    with pytest.raises(PromptError, match="'up'"):
        plan_frame_schedule(3, "up", None, 6)  # type: ignore[arg-type]
