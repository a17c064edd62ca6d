"""Semi-supervised video object segmentation: tracking annotated objects from their first masks, scored by J and F."""

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
"""Mask logit of a pixel inside a mask prompt, as in SAM 2; outside it is negated."""


class Videos:
    """Annotated videos as a dataset, with `names` and `read`.

    Attributes:
        split: name of the split of the dataset that they belong to, if it has splits.
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
    """Track the objects of a video and score them, as in the semi-supervised protocol (SAM 2, section F).

    Each object is prompted once, with its mask in the first annotated frame in which it is visible. Before that frame,
    its prediction is empty. If the masks of the dataset do not overlap, a pixel belongs to the object with the highest
    logit, as in the official inference for DAVIS and YouTube-VOS. The first and the last annotated frame of each
    object are not evaluated.

    Args:
        predictor: the predictor.
        video: the annotated video.
        progress: called after each frame, with the unit "frames".

    Returns:
        The scores by object id. They are empty for an object that is visible in its first or last frame only.

    Raises:
        VideoError: a frame cannot be read.
        DataError: an annotation cannot be read, or does not have the size of the frames.
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
    """The masks of a frame that are not empty, by object id, after a check of their size."""
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
    """Yield frame, object id and mask. Objects are added in the frame where they first appear.

    Objects are tracked independently, so that a later object does not change the masks of earlier ones.
    """
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
    """Assign each pixel of overlapping masks to the object with the highest logit, or to the first of equal ones.

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
    """An annotated video, and the predictor to measure."""

    predictor: VideoPredictor
    video: AnnotatedVideo

    @property
    def left_out(self) -> int:
        """Always 0: objects that are never visible have records without scores instead."""
        return 0


@dataclass(frozen=True)
class VideoProtocol(Protocol):
    """J, F and J&F of semi-supervised video object segmentation (DAVIS 2017, and SA-V's evaluation code).

    J of a dataset is the mean of J over the frames of each object, averaged over all objects of all videos. F is
    averaged in the same way, and J&F is the mean of both.
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
