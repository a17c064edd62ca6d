"""Which frames tracking goes through, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as count_from
from typing import Literal, NamedTuple, TypeAlias

from segany.core.errors import PromptError

Direction: TypeAlias = Literal["forward", "backward", "both"]


class Leg(NamedTuple):
    """Frames one after the other.

    Attributes:
        start: the first.
        last: the last one; None where the end of the video is not known.
        reverse: whether it goes backward.
    """

    start: int
    last: int | None
    reverse: bool

    def frames(self) -> Iterator[int]:
        """The frames in order."""
        if self.last is None:
            return count_from(self.start)
        return iter(range(self.start, self.last - 1, -1) if self.reverse else range(self.start, self.last + 1))

    def __len__(self) -> int:
        """How many there are. Only where the last one is known."""
        assert self.last is not None
        return max(0, (self.start - self.last if self.reverse else self.last - self.start) + 1)


def plan_frame_schedule(
    start: int, direction: Direction, end: int | None, count: int | None
) -> tuple[list[Leg], int | None]:
    """The way from a frame: forward, backward, or forward and then backward from the frame before it.

    Args:
        start: where it begins.
        direction: where it goes.
        end: the last frame, of "both" on the way forward; None for that of the video.
        count: frames of the video; None where that is not known.

    Returns:
        Its legs, and how many frames it has; None where that is not known.

    Raises:
        PromptError: the direction is none, or `end` lies the other way.
    """
    if direction not in ("forward", "backward", "both"):
        raise PromptError(f"direction must be forward, backward or both, got {direction!r}.")
    if end is not None and ((end > start) if direction == "backward" else (end < start)):
        raise PromptError(f"Tracking {direction} from frame {start} never reaches frame {end}.")
    if direction == "backward":
        legs = [Leg(start, end or 0, reverse=True)]
    else:
        last = end if end is not None or count is None else count - 1
        legs = [Leg(start, last, reverse=False)]
        if direction == "both" and start > 0:
            legs.append(Leg(start - 1, 0, reverse=True))
    return legs, None if any(leg.last is None for leg in legs) else sum(len(leg) for leg in legs)
