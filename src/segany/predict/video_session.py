"""One video, its objects, and where tracking stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from segany.errors import EndOfVideoError, PromptError, VideoError
from segany.frame_result import FrameResult
from segany.frames import FrameSource
from segany.frames.live import LiveFrames
from segany.images import ImageSource
from segany.ops.components import clean_masks
from segany.ops.rle import Rle, decode_mask, encode_masks
from segany.predict.object_track import ObjectTrack, Remembered, checked_mask, join_prompts
from segany.predict.saved_track import saved_arrays, track_from_arrays
from segany.predict.session_store import SessionStore
from segany.predict.tracker import Moment, Tracker
from segany.types import BoolArray, Prompt, SizeHW

if TYPE_CHECKING:
    from segany.models.sam2.model import Sam2
    from segany.models.sam2.tracking import FrameFeatures
    from segany.predict.video import VideoConfig

Direction: TypeAlias = Literal["forward", "backward", "both"]

Progress = Callable[[int, int | None], None]
"""Told how many of how many frames are done; None where it is not known how many there are."""


class VideoSession:
    """Tracks objects through one video. Made by `VideoPredictor.open`; use it in a `with` block.

    Objects do not influence each other, so neither the order in which they are added nor prompts of one
    change the others. Memory does not grow with the length of the video: frames are read when they are
    needed, the model remembers what it can still attend to, and results lie on disk.
    """

    def __init__(self, model: Sam2, config: VideoConfig, frames: FrameSource, *, owns_frames: bool) -> None:
        self.model = model
        self.config = config
        self.frames = frames
        self._tracker = Tracker(model, config)
        self._owns_frames = owns_frames
        self._tracks: dict[int, ObjectTrack] = {}
        self._encoded: tuple[int, FrameFeatures] | None = None  # the latest frame, to be clicked on again
        self._store = SessionStore()

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
        features = self._features(frame)
        track = self._tracks.get(object_id, ObjectTrack())
        was_tracked = frame not in track.conditioning and self._has_been_tracked(frame, object_id, track)
        if isinstance(prompt, Prompt):
            prompt = join_prompts(track.prompts.get(frame), prompt)
            prompt.check_fits(self.size_hw)
            outline = self._outline(frame, object_id) if was_tracked else None
            remembered = self._tracker.answer(features, self._moment(frame), track, prompt, outline, was_tracked)
        else:
            prompt = checked_mask(prompt, self.size_hw)
            remembered = self._tracker.use_mask(features, prompt)
        track.prompts[frame] = prompt
        if was_tracked and not self.config.remember_corrections:
            track.tracked[frame] = remembered
        else:
            track.conditioning[frame] = remembered
            track.tracked.pop(frame, None)
        self._tracks[object_id] = track
        return self._result(frame, [object_id], [remembered], logits=False)

    def clear(self, frame: int, object_id: int) -> None:
        """Take back the prompts of an object on one frame. An object without any other prompt is removed."""
        track = self._track(object_id)
        if frame not in track.prompts:
            prompted = ", ".join(map(str, sorted(track.prompts)))
            raise PromptError(f"Object {object_id} has no prompt on frame {frame}. It has on: {prompted}.")
        del track.prompts[frame]
        track.conditioning.pop(frame, None)
        track.tracked.pop(frame, None)
        self._store.drop_results(object_id, frame)
        if not track.conditioning:
            self.remove(object_id)

    def remove(self, object_id: int) -> None:
        """Forget an object."""
        self._track(object_id)
        del self._tracks[object_id]
        self._store.drop_results(object_id)

    def _track(self, object_id: int) -> ObjectTrack:
        if object_id not in self._tracks:
            known = ", ".join(map(str, self._tracks)) or "none"
            raise PromptError(f"There is no object {object_id}. The objects: {known}.")
        return self._tracks[object_id]

    def _moment(self, frame: int, *, reverse: bool = False) -> Moment:
        return Moment(frame, self.size_hw, self.frames.count, reverse)

    def _outline(self, frame: int, object_id: int) -> BoolArray | None:
        """The mask in a frame of which only the result is left."""
        found = self._store.result(frame, object_id)
        return None if found is None else decode_mask(Rle(size=list(self.size_hw), counts=found[0]))

    def _has_been_tracked(self, frame: int, object_id: int, track: ObjectTrack) -> bool:
        return bool(track.conditioning) and (frame in track.tracked or self._store.result(frame, object_id) is not None)

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
        if direction not in ("forward", "backward", "both"):
            raise PromptError(f"direction must be forward, backward or both, got {direction!r}.")
        if start is None:
            start = min(frame for track in self._tracks.values() for frame in track.conditioning)
        self._check_exists(start, "start")
        if end is not None:
            self._check_exists(end, "end")
            if (end < start) if direction != "backward" else (end > start):
                raise PromptError(f"Tracking {direction} from frame {start} never reaches frame {end}.")
        if direction != "forward" and not self.frames.can_seek:
            raise VideoError(f"{self.frames.name} cannot be read backward. Give a list, a folder or a video file.")
        return self._run(start, direction, end, logits, progress)

    def _run(
        self, start: int, direction: Direction, end: int | None, logits: bool, progress: Progress | None
    ) -> Iterator[FrameResult]:
        last = (self.frames.count or 0) - 1 if end is None or direction == "backward" else end
        forward = 0 if direction == "backward" else max(last - start + 1, 0)
        backward_end = end if direction == "backward" and end is not None else 0
        backward_start = start if direction == "backward" else start - 1
        backward = 0 if direction == "forward" else backward_start - backward_end + 1
        total = None if forward and last < 0 else forward + backward
        done = 0
        for reverse in (False, True) if direction == "both" else (direction == "backward",):
            for track in self._tracks.values():
                track.motion = type(track.motion)()
            frame, stop = (backward_start, backward_end - 1) if reverse else (start, None if end is None else end + 1)
            while frame != stop:
                try:
                    result = self._follow(frame, start, reverse=reverse, logits=logits)
                except EndOfVideoError:
                    if reverse or frame == start:
                        raise
                    break
                done += 1
                if progress is not None:
                    progress(done, total)
                yield result
                frame += -1 if reverse else 1

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
            track.forget(
                {start, frame}, self.model.config.memory, reverse=reverse, reliable_only=self.config.motion_aware
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

    def _check_exists(self, frame: int, name: str) -> None:
        count = self.frames.count
        if frame < 0 or (count is not None and frame >= count):
            there = "" if count is None else f": {self.frames.name} has {count}, from 0"
            raise VideoError(f"There is no frame {frame} for {name}{there}.")

    # Results.

    def result(self, frame: int) -> FrameResult | None:
        """What was found in a frame last; None where nothing was. It is read from disk."""
        found = {object_id: self._store.result(frame, object_id) for object_id in self._tracks}
        known = {object_id: row for object_id, row in found.items() if row is not None}
        if not known:
            return None
        size = list(self.size_hw)
        masks = np.stack([decode_mask(Rle(size=size, counts=counts)) for counts, _ in known.values()])
        return FrameResult(frame, tuple(known), masks, np.array([score for _, score in known.values()], np.float32))

    def _result(self, frame: int, ids: list[int], known: Sequence[Remembered], *, logits: bool) -> FrameResult:
        low_res = self._tracker.low_res(known)
        masks = clean_masks(self.model.upscale_masks(low_res, self.size_hw)[0], self.config.clean_area)
        scores = np.array([one.score for one in known], dtype=np.float32)
        for object_id, encoding, score in zip(ids, encode_masks(masks), scores, strict=True):
            self._store.put_result(frame, object_id, encoding["counts"], float(score))
        return FrameResult(
            frame, tuple(ids), masks, scores, self.model.upscale(low_res, self.size_hw)[0] if logits else None
        )

    # On disk.

    def save(self, path: str | Path) -> Path:
        """Write prompts, results and what the model remembers, whole or not at all. Returns the path.

        `VideoPredictor.open(source, resume=path)` goes on from there, as if it had never stopped.
        """
        height, width = self.size_hw
        facts = {"model": self.model.name, "encoder_id": self.model.encoder_id, "width": width, "height": height}
        arrays = (item for object_id, track in self._tracks.items() for item in saved_arrays(object_id, track))
        self._store.save(Path(path), {**facts, "objects": list(self._tracks)}, arrays)
        return Path(path)

    def restore(self, path: Path) -> None:
        """Take over what `save` wrote; see `VideoPredictor.open`."""
        facts = self._store.load(path)
        height, width = self.size_hw
        if (facts.get("width"), facts.get("height")) != (width, height):
            raise VideoError(
                f"{path} was saved of a video {facts.get('width')} wide and {facts.get('height')} high, "
                f"but {self.frames.name} is {width} wide and {height} high."
            )
        if (facts.get("model"), facts.get("encoder_id")) != (self.model.name, self.model.encoder_id):
            raise VideoError(f"{path} was saved with {facts.get('model')}. Open it with that model and its weights.")
        self._tracks = {object_id: ObjectTrack() for object_id in facts["objects"]}
        for object_id, frame, kind, values in self._store.arrays():
            track_from_arrays(self._tracks[object_id], frame, kind, values, self.model.device)
