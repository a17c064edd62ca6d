"""The video session for a frame source: a video file, a folder, a list or iterator of images, or a camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segany.core.errors import EndOfVideoError, PromptError, VideoError
from segany.core.frame_result import FrameResult
from segany.core.instance import Category
from segany.core.progress import Cancellation, ProgressCallback, report
from segany.imaging.frames import FrameSource
from segany.predict.frame_schedule import Direction, FrameRange, plan_frame_schedule
from segany.predict.motion import Motion
from segany.predict.object_track import ObjectTrack
from segany.predict.saved_track import add_arrays_to_track, track_to_arrays
from segany.predict.session_store import readable
from segany.predict.video_config import VideoConfig
from segany.predict.video_session import VideoSession, checked_int

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


class FileVideoSession(VideoSession):
    """A session that reads the frames itself: `propagate` tracks objects through them, `save` writes its state.

    `VideoPredictor.open` creates it.
    """

    def __init__(
        self,
        model: TorchModel,
        config: VideoConfig,
        frames: FrameSource,
        *,
        owns_frames: bool,
        owner: str = "",
        resume: Path | None = None,
    ) -> None:
        """Start without objects, or with the state that `save` wrote to `resume`; see `VideoSession`."""
        super().__init__(model, config, frames, owns_frames=owns_frames, owner=owner)
        self._frames = frames
        self._propagation = Cancellation()  # of the latest propagate()
        if resume is not None:
            try:
                self._restore(resume)
            except BaseException:
                self.close()
                raise

    @property
    def frames(self) -> FrameSource:
        """The frames of the video."""
        return self._frames

    # Tracking.

    def propagate(
        self,
        start: int | None = None,
        direction: Direction = "forward",
        end: int | None = None,
        *,
        logits: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Iterator[FrameResult]:
        """Track all objects through the video, frame by frame.

        The loop may be ended at any time and continued by another call; the result of each frame is complete. Only the
        latest `propagate` of a session can run. Between two frames, any thread may prompt, add or remove objects, which
        affects the following frames. Only one thread may iterate over the results.

        Args:
            start: the first frame; by default the earliest with a prompt.
            direction: "forward" to the end, "backward" to frame 0, or "both": forward, then backward from
                the frame before `start`.
            end: the last frame in that direction, inclusive; for "both", of the forward part.
            logits: return `mask_logits` too.
            progress: called after each frame, with the unit "frames". If it raises, the propagation ends.

        Raises:
            PromptError: there are no prompts yet, or `end` does not lie in the direction of tracking.
            VideoError: there is no such frame, or the video cannot be read backward; during iteration, a frame cannot
                be read, the session was closed, or `propagate` was called again.
            CanceledError: during iteration, after `cancel`.
        """
        with self._lock:
            self._check_open()
            if not self._tracks:
                raise PromptError("There is nothing to track. Prompt an object first.")
            if start is None:
                start = min(frame for track in self._tracks.values() for frame in track.conditioning)
            start = self._checked_frame(start, "start")
            end = None if end is None else self._checked_frame(end, "end")
            schedule, total = plan_frame_schedule(start, direction, end, self.frames.count)
            if direction != "forward" and not self.frames.can_seek:
                raise VideoError(f"{self.frames.name} cannot be read backward. Give a list, a folder or a video file.")
            self._propagation = Cancellation()
            return self._propagate(schedule, total, self._propagation, logits=logits, progress=progress)

    def cancel(self) -> None:
        """Cancel the running `propagate`, from any thread, without waiting.

        The current frame is completed, stored and yielded; then `propagate` raises `CanceledError`. The session remains
        usable, and another `propagate` can continue. If none is running, nothing happens.
        """
        self._propagation.cancel()

    def close(self) -> None:
        """Cancel a running `propagate` and release the video and the results. Closing again does nothing."""
        self.cancel()
        super().close()

    def _propagate(
        self,
        schedule: list[FrameRange],
        total: int | None,
        propagation: Cancellation,
        *,
        logits: bool,
        progress: ProgressCallback | None,
    ) -> Iterator[FrameResult]:
        done = 0
        for frames in schedule:
            with self._lock:
                self._check_running(propagation)
                for track in self._tracks.values():
                    track.motion = Motion()
            for frame in frames.numbers():
                with self._lock:
                    self._check_running(propagation)
                    try:
                        result = self._track_frame(frame, schedule[0].start, reverse=frames.reverse, logits=logits)
                    except EndOfVideoError:
                        if done == 0 or frames.reverse:
                            raise
                        break
                done += 1
                report(progress, "tracking", done, total, "frames")
                yield result

    def _check_running(self, propagation: Cancellation) -> None:
        self._check_open()
        if propagation is not self._propagation:
            raise VideoError("This propagation has ended: propagate() was called again.")
        propagation.check()

    def _checked_frame(self, frame: int, name: str) -> int:
        frame, count = checked_int(frame, name, VideoError), self.frames.count
        if frame < 0 or (count is not None and frame >= count):
            there = "" if count is None else f": {self.frames.name} has {count}, from 0"
            raise VideoError(f"There is no frame {frame} for {name}{there}.")
        return frame

    # Saving.

    def save(self, path: str | Path) -> Path:
        """Write prompts, results and memory banks atomically. Returns the path.

        `VideoPredictor.open(source, resume=path)` resumes the session.

        Raises:
            OutputError: the file could not be written.
            VideoError: the session is closed.
        """
        with self._lock:
            arrays = (item for object_id, track in self._tracks.items() for item in track_to_arrays(object_id, track))
            categories = {
                object_id: asdict(track.category)
                for object_id, track in self._tracks.items()
                if track.category is not None
            }
            facts = {**self._facts(), "objects": list(self._tracks), "categories": categories}
            self._store.save(Path(path), facts, arrays)
        return Path(path)

    def _facts(self) -> dict[str, Any]:
        height, width = self.size_hw
        model = {"model": self.model.name, "encoder_id": self.model.encoder_id}
        return {**model, "width": width, "height": height, "frames": self.frames.count}

    def _restore(self, path: Path) -> None:
        """Load the state that `save` wrote; see `VideoPredictor.open`."""
        saved, ours = self._store.load(path), self._facts()
        for what, names, advice in (
            ("made with", ("model", "encoder_id"), "Open it with that model and its weights."),
            ("saved of a video of", ("width", "height", "frames"), "Open it with that video."),
        ):
            was, now = ([facts.get(name) for name in names] for facts in (saved, ours))
            if was != now and None not in (was[-1], now[-1]):
                facts = ", ".join(f"{name} {value}" for name, value in zip(names, was, strict=True))
                raise VideoError(f"{path} was {what} {facts}, which is not what you gave. {advice}")
        with readable(path):
            self._tracks = {int(object_id): ObjectTrack() for object_id in saved["objects"]}
            for object_id, category in saved.get("categories", {}).items():
                self._tracks[int(object_id)].category = Category(**category)
            for object_id, frame, kind, values in self._store.arrays():
                add_arrays_to_track(self._tracks[object_id], frame, kind, values, self.model.device)
