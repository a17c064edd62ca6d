"""Annotated videos: readers of label maps, masks of single objects, and masklets of SA-V."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from segany.core.arrays import PixelArray, SizeHW
from segany.core.errors import DataError, ImageError, VideoError
from segany.core.rle import Rle, coco_bbox_xywh
from segany.data.annotations import checked_size, encode_segmentation, read_json
from segany.data.folders import read_item_image
from segany.data.formats.label_map import MaskReader, has_void
from segany.data.formats.mask_image import MaskOptions
from segany.imaging.frames import FrameSource, open_frames


class AnnotatedVideo(abc.ABC):
    """Base class of videos with masks of objects in their annotated frames. Frames and masks are read on demand.

    Attributes:
        name: unique name of the video in its dataset.
        annotated: numbers of the annotated frames, ascending.
        may_overlap: whether masks of different objects may overlap, which is false for label maps.
    """

    may_overlap: ClassVar[bool] = True

    def __init__(self, name: str, frames: Sequence[Path] | Path, annotated: tuple[int, ...]) -> None:
        """Describe a video by the image files of its frames, in order, or by a video file."""
        self.name = name
        self.annotated = annotated
        self._frames = frames

    def open(self) -> FrameSource:
        """Open the frame source, to be used in a `with` block.

        Raises:
            VideoError, ImageError: the frames cannot be read.
            MissingExtraError: the video is a video file, and PyAV is not installed.
        """
        return open_frames(self._frames)

    def frame_name(self, frame: int) -> str:
        """Return the file name of a frame without suffix; for video files, its number with five digits."""
        return f"{frame:05d}" if isinstance(self._frames, Path) else self._frames[frame].stem

    def read_frame(self, frame: int) -> PixelArray:
        """Read one frame, uint8 [H, W, 3]. Use `open` to read many frames of a video file.

        Raises:
            DataError: the frame cannot be read.
        """
        if not isinstance(self._frames, Path):
            return read_item_image(self._frames[frame])
        try:
            with self.open() as source:
                return source.read(frame)
        except (VideoError, ImageError) as error:
            raise DataError(str(error)) from error

    @functools.cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of all objects that are visible in an annotated frame, ascending. The first access reads all masks.

        Raises:
            DataError: a mask cannot be read.
        """
        return tuple(sorted({object_id for frame in self.annotated for object_id in self.masks(frame)}))

    def annotated_frames(self, object_id: int) -> tuple[int, ...]:  # noqa: ARG002
        """Return the frames in which an object is annotated, visible or not, ascending; by default all of them."""
        return self.annotated

    @abc.abstractmethod
    def masks(self, frame: int) -> dict[int, Rle]:
        """Read the masks of an annotated frame by object id, ascending. Objects that are not visible have no mask.

        Raises:
            DataError: a mask cannot be read, or two masks have different sizes.
        """


class LabelMapVideo(AnnotatedVideo):
    """A video with a label map for each annotated frame, whose values are object ids, as in DAVIS."""

    may_overlap = False

    def __init__(
        self, name: str, frames: Sequence[Path], label_maps: Mapping[int, Path], masks: MaskOptions | None = None
    ) -> None:
        """Describe a video.

        Args:
            name: unique name of the video.
            frames: image files of the frames.
            label_maps: files of the label maps, by frame number.
            masks: options for reading them.
        """
        super().__init__(name, frames, tuple(sorted(label_maps)))
        self._reader = MaskReader(masks)
        self._label_maps = label_maps

    def masks(self, frame: int) -> dict[int, Rle]:
        path = self._label_maps[frame]
        return self._reader.read(path, str(path), void=self._has_void)

    @functools.cached_property
    def _has_void(self) -> bool:
        """Whether `VOID` is void in all label maps of the video; a single map may not show it."""
        return has_void(self._label_maps[frame] for frame in self.annotated)


class ObjectMaskVideo(AnnotatedVideo):
    """A video with a mask image for each object in each annotated frame, as in the SA-V validation and test sets."""

    def __init__(
        self,
        name: str,
        frames: Sequence[Path],
        mask_files: Mapping[int, Mapping[int, Path]],
        masks: MaskOptions | None = None,
    ) -> None:
        """Describe a video.

        Args:
            name: unique name of the video.
            frames: image files of the frames.
            mask_files: mask images, by frame number and object id.
            masks: options for reading them.
        """
        super().__init__(name, frames, tuple(sorted(mask_files)))
        self._reader = MaskReader(masks)
        self._mask_files = mask_files

    def annotated_frames(self, object_id: int) -> tuple[int, ...]:
        return tuple(frame for frame in self.annotated if object_id in self._mask_files[frame])

    def masks(self, frame: int) -> dict[int, Rle]:
        masks = {}
        for object_id, path in sorted(self._mask_files[frame].items()):
            for mask in self._reader.read(path, str(path), is_one_object=True).values():
                masks[object_id] = mask
        _check_one_size(masks, f"The masks of frame {self.frame_name(frame)} of {self.name}")
        return masks


class MaskletVideo(AnnotatedVideo):
    """A video with a JSON file of masklets, annotated in every frame or every fourth, as in the SA-V training set."""

    def __init__(self, name: str, frames: Sequence[Path] | Path, record_path: Path) -> None:
        """Read the JSON file, to find out which frames are annotated.

        Raises:
            DataError: the file is damaged, not a masklet file, or has more frames than the video.
        """
        record = _read_masklets(record_path)
        if not isinstance(frames, Path) and record.frames > len(frames):
            raise DataError(
                f"{record_path} is of a video of {record.frames} frames, but {frames[0].parent} holds {len(frames)}. "
                "Copy the missing ones, or leave the file out."
            )
        super().__init__(name, frames, tuple(range(0, record.frames, record.stride)))
        self._record_path = record_path
        self._stride = record.stride

    def masks(self, frame: int) -> dict[int, Rle]:
        record = _read_masklets(self._record_path)
        row = record.masklet[frame // self._stride]
        masks = {}
        for object_id, segmentation in sorted(zip(record.object_ids, row, strict=True), key=lambda pair: pair[0]):
            try:
                mask = encode_segmentation(segmentation, record.size_hw)
            except ValueError as error:
                raise DataError(f"{self._record_path}, frame {frame}, object {object_id}: {error}") from error
            if mask is not None and coco_bbox_xywh(mask)[2]:
                masks[object_id] = mask
        return masks


class _Masklets:
    """The validated content of a masklet file.

    Attributes:
        frames: number of frames of the video.
        stride: distance between annotated frames.
        size_hw: size of the video.
        object_ids: ids of the objects, in the order of the columns of `masklet`.
        masklet: a row for each annotated frame, with one segmentation per object.
    """

    def __init__(self, record: Any, path: Path) -> None:
        try:
            self.frames = int(record["video_frame_count"])
            self.size_hw: SizeHW = checked_size(record["video_height"], record["video_width"])
            self.object_ids = [int(object_id) for object_id in record["masklet_id"]]
            self.masklet: list[list[Any]] = record["masklet"]
            count = len(self.masklet)
            is_table = isinstance(self.masklet, list) and all(isinstance(row, list) for row in self.masklet)
            is_table = is_table and all(len(row) == len(self.object_ids) for row in self.masklet)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise DataError(f"{path} is no masklet file of SA-V ({type(error).__name__}: {error}).") from error
        strides = [stride for stride in (4, 1) if count and count == -(-self.frames // stride)]
        if not strides or not is_table or len(set(self.object_ids)) < len(self.object_ids):
            raise DataError(
                f"{path} is damaged: {count} annotated frames do not go with {self.frames} frames of which each or "
                f"every fourth is annotated, or the masks in them not with {len(self.object_ids)} objects."
            )
        self.stride = strides[0]


@functools.lru_cache(maxsize=2)
def _read_masklets(path: Path) -> _Masklets:
    """Read a masklet file. The last files are cached, because masks are read frame by frame."""
    return _Masklets(read_json(path), path)


def _check_one_size(masks: Mapping[int, Rle], what: str) -> None:
    sizes = {tuple(mask["size"]) for mask in masks.values()}
    if len(sizes) > 1:
        raise DataError(f"{what} are of different sizes: {sorted(sizes)}, height and width.")
