"""What was tracked in a video: the masks of every object in every frame, run-length encoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segany.core.arrays import BoolArray, SizeHW
from segany.core.errors import OutputError
from segany.core.frame_result import FrameResult
from segany.core.rle import Rle, coco_bbox_xywh, decode_mask, encode_masks


@dataclass(frozen=True, slots=True)
class TrackedMask:
    """An object in a frame, a few hundred bytes.

    Attributes:
        size_hw: size of the mask in pixels.
        rle_counts: the mask, as COCO's compressed run lengths.
        area: pixels of the mask.
        score: the logit of the object being visible.
    """

    size_hw: SizeHW
    rle_counts: str
    area: int
    score: float

    @property
    def rle(self) -> Rle:
        """The mask as COCO has it."""
        return Rle(size=list(self.size_hw), counts=self.rle_counts)

    @property
    def mask(self) -> BoolArray:
        """bool [H, W], decoded anew each time."""
        return decode_mask(self.rle)

    @property
    def bbox_xywh(self) -> list[float]:
        """Left, top, width and height in pixels, as COCO has it; zeros for an empty mask."""
        return list(coco_bbox_xywh(self.rle))


class Tracks:
    """The results of tracking, in whatever order they come. A later result for an object in a frame replaces it.

    Attributes:
        size_hw: size of the video in pixels.
    """

    def __init__(self, size_hw: SizeHW) -> None:
        """Begin with nothing."""
        self.size_hw = size_hw
        self._frames: dict[int, dict[int, TrackedMask]] = {}

    def add(self, result: FrameResult) -> None:
        """Take the masks of a frame.

        Raises:
            OutputError: they are not of the size of the video.
        """
        if result.size_hw != self.size_hw:
            raise OutputError(
                f"The masks of frame {result.frame} are {list(result.size_hw)} (height, width), but the video is "
                f"{list(self.size_hw)}."
            )
        areas = result.masks.sum(axis=(1, 2)).tolist()
        encodings = encode_masks(result.masks)
        objects = self._frames.setdefault(result.frame, {})
        for object_id, rle, area, score in zip(
            result.object_ids, encodings, areas, result.scores.tolist(), strict=True
        ):
            objects[object_id] = TrackedMask(self.size_hw, rle["counts"], area, score)

    @property
    def frames(self) -> list[int]:
        """The frames that have results, ascending."""
        return sorted(self._frames)

    @property
    def object_ids(self) -> list[int]:
        """All objects of all frames, ascending."""
        return sorted({object_id for objects in self._frames.values() for object_id in objects})

    def objects(self, frame: int) -> dict[int, TrackedMask]:
        """The objects of a frame by their ids, ascending; nothing for a frame without results."""
        return dict(sorted(self._frames.get(frame, {}).items()))

    def of_object(self, object_id: int, frames: Iterable[int]) -> list[TrackedMask | None]:
        """An object in each of these frames; None where there is no result for it."""
        return [self._frames.get(frame, {}).get(object_id) for frame in frames]

    def masks(self, frame: int) -> BoolArray:
        """bool [O, H, W], the masks of a frame in the order of `objects`."""
        masks = [item.mask for item in self.objects(frame).values()]
        return np.stack(masks) if masks else np.zeros((0, *self.size_hw), dtype=np.bool_)
