"""Tracking with prompts that are all known in advance, also for sources that cannot seek."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from segany.core.errors import PromptError
from segany.core.frame_result import FrameResult
from segany.core.progress import ProgressCallback
from segany.data.frame_prompts import FramePrompt
from segany.predict.frame_schedule import Direction

if TYPE_CHECKING:
    from segany.predict.file_video_session import FileVideoSession


def track_prompts(
    session: FileVideoSession,
    prompts: Sequence[FramePrompt],
    *,
    start: int | None = None,
    direction: Direction = "forward",
    max_frames: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[FrameResult]:
    """Prompt objects and track them through the video of a session.

    If the source cannot seek, prompts on frames after the first tracked frame are applied when these frames are
    reached. The result of such a frame includes the prompted objects, and new objects start there.

    Args:
        session: a session on the video.
        prompts: prompts, sorted by frame; at least one.
        start: the first frame; by default the earliest with a prompt.
        direction: as for `propagate`.
        max_frames: end after this number of different frames; None for all.
        progress: as for `propagate`.

    Raises:
        PromptError: a prompt does not fit the video, or its frame was not reached.
        VideoError, CanceledError: as for `propagate`.
    """
    source = session.frames
    begin = max(prompts[0].frame, start or 0)
    early = [item for item in prompts if source.can_seek or item.frame <= begin]
    later = prompts[len(early) :]
    for item in early:
        _prompt(session, item)
    seen = set()
    for tracked in session.propagate(start, direction, progress=progress):
        result = tracked
        for item in later:
            if item.frame == tracked.frame:
                result = result.updated(_prompt(session, item))
        yield result
        seen.add(result.frame)
        if len(seen) == max_frames:
            return
    for item in later:
        if item.frame not in seen:
            raise PromptError(
                f"Frame {item.frame}, object {item.object_id}: there is no such frame: {source.name} ended after "
                f"{source.count} frames, from 0."
            )


def _prompt(session: FileVideoSession, item: FramePrompt) -> FrameResult:
    return session.prompt(item.frame, item.object_id, item.prompt, category=item.category)
