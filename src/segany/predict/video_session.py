"""One video, its objects, and where tracking stands."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import EndOfVideoError, PromptError, SeganyError, VideoError
from segany.core.frame_result import FrameResult
from segany.core.prompt import Prompt
from segany.core.rle import Rle, decode_mask, encode_masks
from segany.imaging.components import clean_masks
from segany.imaging.frames import FrameSource
from segany.imaging.frames.live import LiveFrames
from segany.imaging.image import ImageSource
from segany.predict.frame_schedule import Direction, Leg, plan_frame_schedule
from segany.predict.motion import Motion
from segany.predict.object_track import Before, FrameMemory, ObjectTrack, check_mask_size, checked_mask, join_prompts
from segany.predict.saved_track import saved_arrays, track_from_arrays
from segany.predict.session_store import SessionStore, StoredResult, readable
from segany.predict.tracker import FrameContext, Tracker

if TYPE_CHECKING:
    from segany.models.sam2.tracking import FrameFeatures
    from segany.predict.video import VideoConfig
    from segany.runtime.torch_model import TorchModel

Progress = Callable[[int, int | None], None]
"""Told how many of how many frames are done; None where it is not known how many there are."""


class VideoSession:
    """Tracks objects through one video. Made by `VideoPredictor.open`; use it in a `with` block.

    Objects do not influence each other, so neither the order in which they are added nor prompts of one
    change the others. Memory does not grow with the length of the video: frames are read when they are
    needed, the model remembers what it can still attend to, and results lie on disk.
    """

    def __init__(self, model: TorchModel, config: VideoConfig, frames: FrameSource, *, owns_frames: bool) -> None:
        self.model = model
        self.config = config
        self.frames = frames
        self._tracker = Tracker(model, config)
        self._owns_frames = owns_frames
        self._tracks: dict[int, ObjectTrack] = {}
        self._encoded: tuple[int, FrameFeatures] | None = None  # the latest frame, to be clicked on again
        self._store = SessionStore()
        self._runs = 0

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects, in the order in which they were added."""
        return tuple(self._tracks)

    @property
    def size_hw(self) -> SizeHW:
        """Size of the video in pixels."""
        return self.frames.size_hw

    def __enter__(self) -> VideoSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the video and of the results. Doing it again does nothing."""
        self._store.close()
        self._encoded = None
        if self._owns_frames:
            self.frames.close()

    # Prompts.

    def prompt(self, frame: int, object_id: int, prompt: Prompt | BoolArray) -> FrameResult:
        """Say what an object is, on any frame and at any time.

        Further points on the same frame add to the earlier ones, a further box takes the place of the
        earlier one, and the answer so far goes in as well. A mask takes the place of all of that.

        Args:
            frame: number of the frame.
            object_id: a number of your choice; a new one adds an object.
            prompt: points, a box or both; or a mask, bool [H, W] at the size of the video.

        Returns:
            The object's mask in that frame. The other frames change with the next `propagate`.

        Raises:
            PromptError: the prompt does not fit the video.
            VideoError: there is no such frame.
        """
        frame, object_id = _number(frame, "frame", VideoError), _number(object_id, "object_id", PromptError)
        features = self._features(frame)
        track = self._tracks.get(object_id, ObjectTrack())
        before = self._before(frame, object_id, track)
        if isinstance(prompt, Prompt):
            prompt = join_prompts(track.prompts.get(frame), prompt)
            prompt.check_fits(self.size_hw)
            check_mask_size(prompt, self.model.low_res_size)
            remembered = self._tracker.answer(features, self._moment(frame), track, prompt, before)
        else:
            prompt = checked_mask(prompt, self.size_hw)
            remembered = self._tracker.use_mask(features, prompt)
        result = self._result(frame, [object_id], [remembered], logits=False)
        track.prompts[frame] = prompt
        track.motion.restart(remembered.low_res)
        if before.was_followed and not self.config.remember_corrections:
            track.tracked[frame] = remembered
        else:
            track.conditioning[frame] = remembered
            track.tracked.pop(frame, None)
        self._tracks[object_id] = track
        return result

    def clear(self, frame: int, object_id: int) -> None:
        """Take back the prompts of an object on one frame. An object without any other prompt is removed."""
        frame, track = _number(frame, "frame", VideoError), self._track(object_id)
        if frame not in track.prompts:
            prompted = ", ".join(map(str, sorted(track.prompts)))
            raise PromptError(f"Object {object_id} has no prompt on frame {frame}. It has on: {prompted}.")
        self._store.drop_results(object_id, frame)
        track.clear(frame)
        if not track.conditioning:
            self.remove(object_id)

    def remove(self, object_id: int) -> None:
        """Forget an object."""
        self._track(object_id)
        self._store.drop_results(object_id)
        del self._tracks[object_id]

    def _track(self, object_id: int) -> ObjectTrack:
        object_id = _number(object_id, "object_id", PromptError)
        if object_id not in self._tracks:
            known = ", ".join(map(str, self._tracks)) or "none"
            raise PromptError(f"There is no object {object_id}. The objects: {known}.")
        return self._tracks[object_id]

    def _moment(self, frame: int, *, reverse: bool = False) -> FrameContext:
        return FrameContext(frame, self.size_hw, self.frames.count, reverse)

    def _before(self, frame: int, object_id: int, track: ObjectTrack) -> Before:
        """What is known of an object in a frame that is prompted."""
        remembered = track.conditioning.get(frame) or track.tracked.get(frame)
        result = self._store.result(frame, object_id) if remembered is None or remembered.low_res is None else None
        was_followed = remembered is not None and remembered.followed
        if not any(index != frame for index in track.conditioning):
            return Before(remembered, None, was_followed=False, reverse=False)
        if result is not None:
            outline = decode_mask(Rle(size=list(self.size_hw), counts=result.counts))
            return Before(None, outline, was_followed=True, reverse=result.reverse)
        return Before(remembered, None, was_followed, reverse=remembered is not None and remembered.reverse)

    # Tracking.

    def propagate(
        self,
        start: int | None = None,
        direction: Direction = "forward",
        end: int | None = None,
        *,
        logits: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[FrameResult]:
        """Follow all objects through the video, frame by frame.

        It may be left at any time, and gone on with by another call; each frame's result is complete.

        Args:
            start: the first frame; by default the earliest with a prompt.
            direction: "forward" to the end, "backward" to frame 0, or "both": forward, then backward from
                the frame before `start`.
            end: the last frame in that direction, included; for "both" of the way forward.
            logits: also give `mask_logits`.
            progress: told how many of how many frames are done.

        Raises:
            PromptError: nothing was prompted yet, or `start` or `end` make no sense.
            VideoError: there is no such frame, or the video cannot be read backward.
        """
        if not self._tracks:
            raise PromptError("There is nothing to track. Prompt an object first.")
        if isinstance(self.frames, LiveFrames):
            raise VideoError("The frames of a live session come one by one: use step() instead of propagate().")
        if start is None:
            start = min(frame for track in self._tracks.values() for frame in track.conditioning)
        start = self._checked_frame(start, "start")
        end = None if end is None else self._checked_frame(end, "end")
        legs, total = plan_frame_schedule(start, direction, end, self.frames.count)
        if direction != "forward" and not self.frames.can_seek:
            raise VideoError(f"{self.frames.name} cannot be read backward. Give a list, a folder or a video file.")
        self._runs += 1
        return self._run(legs, total, self._runs, logits=logits, progress=progress)

    def _run(
        self, legs: list[Leg], total: int | None, run: int, *, logits: bool, progress: Progress | None
    ) -> Iterator[FrameResult]:
        done = 0
        for leg in legs:
            for track in self._tracks.values():
                track.motion = Motion()
            for frame in leg.frames():
                if run != self._runs:
                    raise VideoError("This way through the video has ended: propagate() was called once more.")
                try:
                    result = self._follow(frame, legs[0].start, reverse=leg.reverse, logits=logits)
                except EndOfVideoError:
                    if done == 0 or leg.reverse:
                        raise
                    break
                done += 1
                if progress is not None:
                    progress(done, total)
                yield result

    def step(self, frame: ImageSource, *, logits: bool = False) -> FrameResult:
        """Take the next frame of a live video, and follow the objects there are to it.

        Args:
            frame: uint8 [H, W, 3], or what else `read_image` takes.
            logits: also give `mask_logits`.

        Returns:
            The masks in this frame; none while nothing was prompted. Prompts on it come after.
        """
        if not isinstance(self.frames, LiveFrames):
            raise VideoError("Only a live session takes frames: use VideoPredictor.live() instead of open().")
        position = self.frames.push(frame)
        self._encoded = None
        return self._follow(position, position, reverse=False, logits=logits)

    def _follow(self, frame: int, start: int, *, reverse: bool, logits: bool) -> FrameResult:
        """All objects in one frame: those prompted there as they were, the others from what is remembered."""
        followed = [track for track in self._tracks.values() if frame not in track.conditioning]
        if followed:
            remembered = self._tracker.follow(self._features(frame), self._moment(frame, reverse=reverse), followed)
            for track, one in zip(followed, remembered, strict=True):
                track.tracked[frame] = one
        else:
            self.frames.read(frame)  # so that the end of the video is noticed
        for track in self._tracks.values():
            if frame in track.conditioning:
                track.motion.restart(track.conditioning[frame].low_res)
        for track in self._tracks.values():
            track.forget(
                {start, frame},
                self._tracker.model.config.memory,
                reverse=reverse,
                reliable_only=self.config.motion_aware,
            )
        ids = list(self._tracks)
        known = [
            track.conditioning[frame] if frame in track.conditioning else track.tracked[frame]
            for track in self._tracks.values()
        ]
        return self._result(frame, ids, known, logits=logits)

    def _features(self, frame: int) -> FrameFeatures:
        if self._encoded is None or self._encoded[0] != frame:
            pixels = self.frames.read(frame)
            self._encoded = None  # let go of the old one before there is a new one
            self._encoded = (frame, self._tracker.encode(pixels))
        return self._encoded[1]

    def _checked_frame(self, frame: int, name: str) -> int:
        frame, count = _number(frame, name, VideoError), self.frames.count
        if frame < 0 or (count is not None and frame >= count):
            there = "" if count is None else f": {self.frames.name} has {count}, from 0"
            raise VideoError(f"There is no frame {frame} for {name}{there}.")
        return frame

    # Results.

    def result(self, frame: int) -> FrameResult | None:
        """What was found in a frame last; None where nothing was. It is read from disk."""
        frame = _number(frame, "frame", VideoError)
        found = {object_id: self._store.result(frame, object_id) for object_id in self._tracks}
        known = {object_id: stored for object_id, stored in found.items() if stored is not None}
        if not known:
            return None
        size = list(self.size_hw)
        masks = np.stack([decode_mask(Rle(size=size, counts=stored.counts)) for stored in known.values()])
        scores = np.array([stored.score for stored in known.values()], dtype=np.float32)
        return FrameResult(frame, tuple(known), masks, scores)

    def _result(self, frame: int, ids: list[int], known: Sequence[FrameMemory], *, logits: bool) -> FrameResult:
        low_res = self._tracker.low_res(known)
        masks = clean_masks(self.model.processor.upscale_masks(low_res, self.size_hw)[0], self.config.clean_area)
        scores = np.array([one.score for one in known], dtype=np.float32)
        for object_id, encoding, one in zip(ids, encode_masks(masks), known, strict=True):
            self._store.put_result(frame, object_id, StoredResult(encoding["counts"], one.score, one.reverse))
        return FrameResult(
            frame, tuple(ids), masks, scores, self.model.processor.upscale(low_res, self.size_hw)[0] if logits else None
        )

    # On disk.

    def save(self, path: str | Path) -> Path:
        """Write prompts, results and what the model remembers, whole or not at all. Returns the path.

        `VideoPredictor.open(source, resume=path)` goes on from there, as if it had never stopped.
        """
        if isinstance(self.frames, LiveFrames):
            raise VideoError("A live session cannot be saved: its frames are gone. Save the results instead.")
        arrays = (item for object_id, track in self._tracks.items() for item in saved_arrays(object_id, track))
        self._store.save(Path(path), {**self._facts(), "objects": list(self._tracks)}, arrays)
        return Path(path)

    def _facts(self) -> dict[str, Any]:
        height, width = self.size_hw
        model = {"model": self.model.name, "encoder_id": self.model.encoder_id}
        return {**model, "width": width, "height": height, "frames": self.frames.count}

    def _restore(self, path: Path) -> None:
        """Take over what `save` wrote; see `VideoPredictor.open`."""
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
            for object_id, frame, kind, values in self._store.arrays():
                track_from_arrays(self._tracks[object_id], frame, kind, values, self.model.device)


def _number(value: int, name: str, kind: type[SeganyError]) -> int:
    """A whole number as a plain one, which is what goes to disk."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not -(2**31) <= number < 2**31:
        raise kind(f"{name} must be a whole number below 2^31, got {value!r}.")
    return number
