"""The frame schedule of a propagation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as count_from
from typing import Literal, NamedTuple, TypeAlias

from segany.core.errors import PromptError

Direction: TypeAlias = Literal["forward", "backward", "both"]


class FrameRange(NamedTuple):
    """Consecutive frames in one direction.

    Attributes:
        start: the first frame.
        last: the last frame, inclusive; None if the end of the video is not known.
        reverse: whether the range goes backward.
    """

    start: int
    last: int | None
    reverse: bool

    def numbers(self) -> Iterator[int]:
        """Iterate over the frame numbers in order."""
        if self.last is None:
            return count_from(self.start)
        return iter(range(self.start, self.last - 1, -1) if self.reverse else range(self.start, self.last + 1))

    def __len__(self) -> int:
        """Number of frames; `last` must be known."""
        assert self.last is not None
        return max(0, (self.start - self.last if self.reverse else self.last - self.start) + 1)


def plan_frame_schedule(
    start: int, direction: Direction, end: int | None, count: int | None
) -> tuple[list[FrameRange], int | None]:
    """Plan the frames of a propagation: forward, backward, or forward and then backward from before the start.

    Args:
        start: the first frame.
        direction: "forward", "backward" or "both".
        end: the last frame, for "both" of the forward part; None for the end of the video.
        count: number of frames of the video; None if it is not known.

    Returns:
        The ranges of frames, and their total number of frames; None if it is not known.

    Raises:
        PromptError: there is no such direction, or `end` lies in the opposite direction.
    """
    if direction not in ("forward", "backward", "both"):
        raise PromptError(f"direction must be forward, backward or both, got {direction!r}.")
    if end is not None and ((end > start) if direction == "backward" else (end < start)):
        raise PromptError(f"Tracking {direction} from frame {start} never reaches frame {end}.")
    if direction == "backward":
        ranges = [FrameRange(start, end or 0, reverse=True)]
    else:
        last = end if end is not None or count is None else count - 1
        ranges = [FrameRange(start, last, reverse=False)]
        if direction == "both" and start > 0:
            ranges.append(FrameRange(start - 1, 0, reverse=True))
    return ranges, None if any(one.last is None for one in ranges) else sum(len(one) for one in ranges)
