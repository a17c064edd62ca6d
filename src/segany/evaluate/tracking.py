"""One annotated video, tracked from the masks of the frames where its objects first appear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from segany.core.arrays import BoolArray, FloatArray, SizeHW
from segany.core.errors import DataError
from segany.core.progress import ProgressCallback
from segany.core.rle import Rle, coco_bbox_xywh, decode_mask, encode_masks
from segany.data.video import AnnotatedVideo
from segany.evaluate.boundary_f import TrackScores, score_track
from segany.evaluate.metrics import mean
from segany.evaluate.protocol import Numbers, Protocol, Record

if TYPE_CHECKING:
    from segany.predict.file_video_session import FileVideoSession
    from segany.predict.video import VideoPredictor

GIVEN_LOGIT = 10.0
"""Logit of a pixel inside a mask that was given, as SAM 2 outputs it; outside it is the negative."""


class Videos:
    """Videos as a dataset, with `names` and `read`.

    Attributes:
        split: which split of their dataset they are, where that has any.
    """

    def __init__(self, videos: Sequence[AnnotatedVideo], split: str | None = None) -> None:
        self._videos = videos
        self.split = split
        self.names = tuple(video.name for video in videos)

    def __len__(self) -> int:
        return len(self._videos)

    def read(self, index: int) -> AnnotatedVideo:
        return self._videos[index]


def track_objects(
    predictor: VideoPredictor, video: AnnotatedVideo, progress: ProgressCallback | None = None
) -> dict[int, TrackScores]:
    """Track the objects of a video forward and score them: semi-supervised, as of DAVIS and SA-V (SAM 2, section F).

    Each object is prompted once, with its mask in the first frame in which it is annotated and to be seen.
    Before that frame, its prediction is empty. Where the masks of a video cannot overlap, a pixel belongs to the
    object with the highest logit, as in the official inference for DAVIS and YouTube-VOS. The first and the last
    annotated frame of each object do not count.

    Args:
        predictor: the model.
        video: what to track.
        progress: called after each frame, with the unit "frames".

    Returns:
        The scores of each object; without any frames where it is only seen in the first or the last.

    Raises:
        VideoError: a frame cannot be read.
        DataError: an annotation cannot be read, or does not fit the frames.
        MissingExtraError: SciPy is not installed.
    """
    with video.open() as frames:
        targets = {frame: _checked(video, frame, frames.size_hw) for frame in video.annotated}
        appearing: dict[int, list[int]] = {}
        for object_id in video.object_ids:
            seen = next((frame for frame in video.annotated if object_id in targets[frame]), None)
            if seen is not None:
                appearing.setdefault(seen, []).append(object_id)
        found: dict[tuple[int, int], Rle] = {}
        if appearing:
            with predictor.open(frames) as session:
                for frame, object_id, mask in _track(session, targets, appearing, progress, video.may_overlap):
                    if frame in targets:
                        found[frame, object_id] = encode_masks(mask)[0]
        nothing = np.zeros(frames.size_hw, dtype=np.bool_)

    def masks_of(encodings: Iterable[Rle | None]) -> Iterator[BoolArray]:
        return (nothing if encoding is None else decode_mask(encoding) for encoding in encodings)

    scores = {}
    for object_id in video.object_ids:
        annotated = video.annotated_frames(object_id)
        scores[object_id] = score_track(
            masks_of(found.get((frame, object_id)) for frame in annotated),
            masks_of(targets[frame].get(object_id) for frame in annotated),
            from_the_start=not video.may_overlap,
        )
    return scores


def _checked(video: AnnotatedVideo, frame: int, size_hw: SizeHW) -> dict[int, Rle]:
    """The masks of a frame that are not empty."""
    masks = video.masks(frame)
    for object_id, mask in masks.items():
        if tuple(mask["size"]) != size_hw:
            raise DataError(
                f"The mask of object {object_id} in frame {frame} of {video.name} is {mask['size'][1]} wide and "
                f"{mask['size'][0]} high, but the frames are {size_hw[1]} x {size_hw[0]}."
            )
    return {object_id: mask for object_id, mask in masks.items() if coco_bbox_xywh(mask)[2]}


def _track(
    session: FileVideoSession,
    targets: Mapping[int, Mapping[int, Rle]],
    appearing: Mapping[int, Sequence[int]],
    progress: ProgressCallback | None,
    may_overlap: bool,
) -> Iterator[tuple[int, int, BoolArray]]:
    """Frames, objects and masks. Objects join when they appear: none influences another, so each is as if alone."""
    first = min(appearing)
    for object_id in appearing[first]:
        session.prompt(first, object_id, decode_mask(targets[first][object_id]))
    for result in session.propagate(start=first, logits=not may_overlap, progress=progress):
        ids, masks = list(result.object_ids), list(result.masks)
        logits = [] if result.mask_logits is None else list(result.mask_logits)
        for object_id in appearing.get(result.frame, []) if result.frame != first else []:
            given = decode_mask(targets[result.frame][object_id])
            masks.append(session.prompt(result.frame, object_id, given).mask_of(object_id))
            ids.append(object_id)
            logits.append(np.where(given, GIVEN_LOGIT, -GIVEN_LOGIT).astype(np.float32))
        if not may_overlap and masks:
            masks = list(without_overlaps(np.stack(masks), np.stack(logits)))
        for object_id, mask in zip(ids, masks, strict=True):
            yield result.frame, object_id, mask


def without_overlaps(masks: BoolArray, mask_logits: FloatArray) -> BoolArray:
    """Each pixel of several masks goes to the object with the highest logit there, of equal ones to the first.

    Args:
        masks: bool [O, H, W].
        mask_logits: float32 [O, H, W].

    Returns:
        bool [O, H, W].
    """
    owner = mask_logits.argmax(axis=0)
    owned: BoolArray = masks & (owner == np.arange(len(masks))[:, None, None])
    return owned


@dataclass(frozen=True, eq=False)
class VideoSubject:
    """A video that is to be tracked, and what tracks it."""

    predictor: VideoPredictor
    video: AnnotatedVideo

    @property
    def left_out(self) -> int:
        """Objects that are never seen are only known once all is read, and have records without scores."""
        return 0


@dataclass(frozen=True)
class VideoProtocol(Protocol):
    """J, F and J&F of objects given by their first masks (DAVIS 2017; SA-V, as its evaluation code has it).

    A dataset's J is the mean over all objects of all videos of each object's mean over frames; F is the same,
    and J&F the mean of both.
    """

    name: ClassVar[str] = "video"
    version: ClassVar[int] = 2

    def measure(self, subject: VideoSubject, progress: ProgressCallback | None = None) -> list[Record]:
        scores = track_objects(subject.predictor, subject.video, progress)
        return [{"object": key, "frames": len(one.j), "j": one.mean_j, "f": one.mean_f} for key, one in scores.items()]

    def summarize(self, records: Sequence[Record]) -> Numbers:
        scored = [one for one in records if one["frames"]]
        j, f = mean([one["j"] for one in scored]), mean([one["f"] for one in scored])
        return {
            "objects": len(scored),
            "frames": sum(one["frames"] for one in scored),
            "j": j,
            "f": f,
            "jf": None if j is None or f is None else (j + f) / 2,
        }
