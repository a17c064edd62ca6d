"""Base class of video sessions: objects of a video, their prompts, memory banks and results."""

from __future__ import annotations

import abc
import operator
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import PromptError, SeganyError, VideoError
from segany.core.frame_result import FrameResult
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.prompt import Prompt
from segany.imaging.components import clean_masks
from segany.imaging.frames import FrameSource
from segany.predict.object_track import (
    FrameMemory,
    ObjectTrack,
    PreviousOutput,
    join_prompts,
)
from segany.predict.session_store import SessionStore
from segany.predict.tracker import FrameContext, Tracker
from segany.predict.video_config import VideoConfig

if TYPE_CHECKING:
    from segany.models.sam2.tracking import FrameFeatures
    from segany.runtime.torch_model import TorchModel

AnySession = TypeVar("AnySession", bound="VideoSession")


class VideoSession(abc.ABC):
    """Tracks objects through one video. Use it in a `with` block.

    `VideoPredictor.open` makes a `FileVideoSession`, `VideoPredictor.live` a `LiveVideoSession`.

    Objects are independent: neither the order in which they are added nor the prompts of one affect the others. Memory
    does not grow with the length of the video: frames are read on demand, the memory bank keeps only entries that can
    still be attended to, and results are stored on disk.

    A session is thread-safe. A lock ensures that one frame or prompt is computed at a time; `object_ids`, `owner` and
    `result` do not wait for it. Other threads must not read the frames of a session.

    Attributes:
        model: the model.
        config: settings of tracking.
        owner: owner of the session, as given when it was opened; empty by default.
    """

    def __init__(
        self, model: TorchModel, config: VideoConfig, frames: FrameSource, *, owns_frames: bool, owner: str = ""
    ) -> None:
        """Start without objects.

        Args:
            model: the model.
            config: settings of tracking.
            frames: the frame source.
            owns_frames: whether `close` closes the frame source too.
            owner: owner of the session.
        """
        self.model = model
        self.config = config
        self.owner = owner
        self._lock = threading.RLock()
        self._tracker = Tracker(model, config)
        self._tracks: dict[int, ObjectTrack] = {}
        self._features_of: tuple[int, FrameFeatures] | None = None  # the latest frame, for further prompts on it
        self._store = SessionStore()
        self._is_closed = False
        self._owned_frames = frames if owns_frames else None

    @property
    @abc.abstractmethod
    def frames(self) -> FrameSource:
        """The frames of the video."""

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects, in the order in which they were added."""
        return tuple(self._tracks)

    @property
    def size_hw(self) -> SizeHW:
        """Size of the video in pixels."""
        return self.frames.size_hw

    def __enter__(self: AnySession) -> AnySession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the video and the results, after the current frame. Closing again does nothing."""
        with self._lock:
            self._is_closed = True
            self._store.close()
            self._features_of = None
            if self._owned_frames is not None:
                self._owned_frames.close()

    # Prompts.

    def prompt(
        self, frame: int, object_id: int, prompt: Prompt | BoolArray, *, category: Category | None = None
    ) -> FrameResult:
        """Prompt an object on any frame, at any time.

        More points on the same frame are added to the earlier points, another box replaces the earlier box, and the
        previous mask logits are used as mask prompt. A mask alone replaces all prompts of the frame and is the result.

        Args:
            frame: number of the frame.
            object_id: any non-negative number; a new number adds an object.
            prompt: a `Prompt`; or a mask alone, bool [H, W] at the size of the video.
            category: the category of the object; by default that of an earlier prompt.

        Returns:
            The mask of the object in this frame. Other frames are updated by the next `propagate`, or by a running
            `propagate` when it reaches them.

        Raises:
            PromptError: the prompt does not fit the video, the id is negative, or another object has a category with
                the same id and another name.
            VideoError: there is no such frame.
        """
        frame, object_id = checked_int(frame, "frame", VideoError), checked_int(object_id, "object_id", PromptError)
        if object_id < 0:
            raise PromptError(f"object_id must not be negative, got {object_id}.")
        with self._lock:
            features = self._features(frame)
            track = self._tracks.get(object_id, ObjectTrack())
            category = category or track.category
            self._check_category(object_id, category)
            previous = self._previous_output(frame, object_id, track)
            whole = join_prompts(track.prompts.get(frame), prompt, self.size_hw)
            if isinstance(whole, Prompt):
                context = self._context(frame)
                memory = self._tracker.predict_prompted_frame(features, context, track, whole, previous)
            else:
                memory = self._tracker.use_mask_prompt(features, whole)
            result = self._result(frame, {object_id: memory}, {object_id: category}, logits=False)
            track.prompts[frame], track.category = whole, category
            track.motion.restart(memory.low_res)
            if previous.was_tracked and not self.config.remember_corrections:
                track.tracked[frame] = memory
            else:
                track.conditioning[frame] = memory
                track.tracked.pop(frame, None)
            self._tracks[object_id] = track
            return result

    def clear(self, frame: int, object_id: int) -> None:
        """Remove the prompts of an object on one frame. An object without any other prompt is removed.

        Raises:
            PromptError: there is no such object, or it has no prompt on that frame.
        """
        frame = checked_int(frame, "frame", VideoError)
        with self._lock:
            track = self._track(object_id)
            if frame not in track.prompts:
                prompted = ", ".join(map(str, sorted(track.prompts)))
                raise PromptError(f"Object {object_id} has no prompt on frame {frame}. It has on: {prompted}.")
            self._store.drop(object_id, frame)
            track.clear(frame)
            if not track.conditioning:
                self.remove(object_id)

    def remove(self, object_id: int) -> None:
        """Remove an object and its results. Raises `PromptError` if there is no such object."""
        with self._lock:
            self._track(object_id)
            self._store.drop(object_id)
            del self._tracks[object_id]

    def _track(self, object_id: int) -> ObjectTrack:
        object_id = checked_int(object_id, "object_id", PromptError)
        if object_id not in self._tracks:
            known = ", ".join(map(str, self._tracks)) or "none"
            raise PromptError(f"There is no object {object_id}. The objects: {known}.")
        return self._tracks[object_id]

    def _check_category(self, object_id: int, category: Category | None) -> None:
        for other_id, track in self._tracks.items():
            other = track.category
            if category and other and other_id != object_id and other.id == category.id and other.name != category.name:
                raise PromptError(
                    f"Category {category.id} is {category.name!r}, but {other.name!r} for object {other_id}. "
                    "Give different categories different ids."
                )

    def _previous_output(self, frame: int, object_id: int, track: ObjectTrack) -> PreviousOutput:
        """Return the previous prediction for an object on a frame that is prompted."""
        memory = track.at(frame)
        if memory is not None and memory.low_res is not None:
            return track.previous_output(frame, None, stored_reverse=False)
        stored = self._store.get(frame, [object_id], self.size_hw)
        if not len(stored):
            return track.previous_output(frame, None, stored_reverse=False)
        return track.previous_output(frame, stored.mask(0), stored_reverse=bool(stored.reverse[0]))

    # Tracking.

    def _track_frame(self, frame: int, start: int, *, reverse: bool, logits: bool) -> FrameResult:
        """Predict all objects in one frame from their memory banks; prompted objects keep their results.

        Args:
            frame: the frame.
            start: the first frame of the propagation.
            reverse: whether it goes backward.
            logits: return `mask_logits` too.
        """
        unprompted = [track for track in self._tracks.values() if frame not in track.conditioning]
        if unprompted:
            context = self._context(frame, reverse=reverse)
            memories = self._tracker.propagate_frame(self._features(frame), context, unprompted)
            for track, memory in zip(unprompted, memories, strict=True):
                track.tracked[frame] = memory
        else:
            self.frames.read(frame)  # raises at the end of the video
        known = {}
        for object_id, track in self._tracks.items():
            if frame in track.conditioning:
                track.motion.restart(track.conditioning[frame].low_res)
            memory_config, reliable_only = self._tracker.model.config.memory, self.config.motion_aware
            track.prune({start, frame}, memory_config, reverse=reverse, reliable_only=reliable_only)
            known[object_id] = track.conditioning[frame] if frame in track.conditioning else track.tracked[frame]
        return self._result(frame, known, self._categories(), logits=logits)

    def _context(self, frame: int, *, reverse: bool = False) -> FrameContext:
        return FrameContext(frame, self.size_hw, self.frames.count, reverse)

    def _features(self, frame: int) -> FrameFeatures:
        self._check_open()
        if self._features_of is None or self._features_of[0] != frame:
            pixels = self.frames.read(frame)
            self._features_of = None  # free the old features before computing new ones
            self._features_of = (frame, self._tracker.encode_frame(pixels))
        return self._features_of[1]

    def _check_open(self) -> None:
        if self._is_closed:
            raise VideoError("The session is closed. Open the video again.")

    # Results.

    def result(self, frame: int) -> FrameResult | None:
        """Return the latest result of a frame from disk; None if there is none.

        Raises:
            VideoError: the session is closed.
            InstancesError: the session was resumed from a file with damaged masks.
        """
        frame = checked_int(frame, "frame", VideoError)
        instances = self._store.get(frame, self.object_ids, self.size_hw)
        if not len(instances):
            return None
        return FrameResult(frame, with_categories(instances, self._categories()))

    def _categories(self) -> dict[int, Category | None]:
        return {object_id: track.category for object_id, track in list(self._tracks.items())}

    def _result(
        self,
        frame: int,
        known: Mapping[int, FrameMemory],
        categories: Mapping[int, Category | None],
        *,
        logits: bool,
    ) -> FrameResult:
        """Upscale, clean, encode and store the masks of objects. Returns the result of the frame."""
        low_res = self._tracker.low_res(list(known.values()))
        masks = self.model.processor.upscale_masks(low_res, self.size_hw)[0]
        result = FrameResult.from_masks(
            frame,
            list(known),
            clean_masks(masks, self.config.min_mask_region_area),
            [one.object_score for one in known.values()],
            mask_logits=self.model.processor.upscale(low_res, self.size_hw)[0] if logits else None,
            columns={"reverse": np.array([one.reverse for one in known.values()], dtype=np.bool_)},
            **category_columns(known, categories),
        )
        self._store.put(frame, result.instances)
        return result


def category_columns(
    object_ids: Sequence[int] | Mapping[int, object], categories: Mapping[int, Category | None]
) -> dict[str, list[int] | list[Category]]:
    """Make the columns `category_ids` and `categories` of `Instances` from the categories of objects."""
    found = [categories.get(object_id) for object_id in object_ids]
    by_id = {category.id: category for category in found if category is not None}
    return {
        "category_ids": [NO_ID if category is None else category.id for category in found],
        "categories": [by_id[category_id] for category_id in sorted(by_id)],
    }


def with_categories(instances: Instances, categories: Mapping[int, Category | None]) -> Instances:
    """Return the instances with the categories of their objects."""
    columns = category_columns(instances.object_ids.tolist(), categories)
    return instances.with_categories(columns["category_ids"], columns["categories"])  # type: ignore[arg-type]


def checked_int(value: int, name: str, kind: type[SeganyError]) -> int:
    """Convert an integer to `int`, as SQLite requires. Raises `kind` if it is not an integer below 2^31."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not -(2**31) <= number < 2**31:
        raise kind(f"{name} must be a whole number below 2^31, got {value!r}.")
    return number
