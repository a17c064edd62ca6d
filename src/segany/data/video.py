"""Videos whose objects are known in some frames."""

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
    """A video, and the masks of the objects in its annotated frames. Neither is held in memory.

    Attributes:
        name: of the video in its dataset, unlike all others.
        annotated: numbers of the frames that are annotated, ascending.
        may_overlap: whether masks of different objects may share pixels. They cannot in label maps; in SA-V they do.
    """

    may_overlap: ClassVar[bool] = True

    def __init__(self, name: str, frames: Sequence[Path] | Path, annotated: tuple[int, ...]) -> None:
        """Take the files of the frames in their order, or a video file."""
        self.name = name
        self.annotated = annotated
        self._frames = frames

    def open(self) -> FrameSource:
        """The frames. Use it in a `with` block.

        Raises:
            VideoError, ImageError: they cannot be read.
            MissingExtraError: it is a video file, and PyAV is not installed.
        """
        return open_frames(self._frames)

    def frame_name(self, frame: int) -> str:
        """The name of the file of a frame without its ending, or five digits of its number."""
        return f"{frame:05d}" if isinstance(self._frames, Path) else self._frames[frame].stem

    def read_frame(self, frame: int) -> PixelArray:
        """One frame alone, uint8 [H, W, 3]. To read many of a video file, `open` it.

        Raises:
            DataError: it cannot be read.
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
        """Of all objects that are visible in any annotated frame, ascending. Reads all masks the first time.

        Raises:
            DataError: some cannot be read.
        """
        return tuple(sorted({object_id for frame in self.annotated for object_id in self.masks(frame)}))

    def annotated_frames(self, object_id: int) -> tuple[int, ...]:  # noqa: ARG002
        """The frames in which one object is annotated, visible or not, ascending: all annotated ones by default."""
        return self.annotated

    @abc.abstractmethod
    def masks(self, frame: int) -> dict[int, Rle]:
        """The masks of an annotated frame by object, ascending. An object without a mask is not visible there.

        Raises:
            DataError: they cannot be read, or are of different sizes.
        """


class LabelMapVideo(AnnotatedVideo):
    """A video with a picture for each annotated frame, in which pixels are the ids of objects: as in DAVIS."""

    may_overlap = False

    def __init__(
        self, name: str, frames: Sequence[Path], pictures: Mapping[int, Path], masks: MaskOptions | None = None
    ) -> None:
        """Take the pictures by the number of their frame, and how they are read."""
        super().__init__(name, frames, tuple(sorted(pictures)))
        self._reader = MaskReader(masks)
        self._pictures = pictures

    def masks(self, frame: int) -> dict[int, Rle]:
        path = self._pictures[frame]
        return self._reader.read(path, str(path), void=self._has_void)

    @functools.cached_property
    def _has_void(self) -> bool:
        """Of all frames alike: one that holds nothing but void has no objects."""
        return has_void(self._pictures[frame] for frame in self.annotated)


class PicturesVideo(AnnotatedVideo):
    """A video with a picture for each object in each annotated frame: as in the SA-V validation and test sets."""

    def __init__(
        self,
        name: str,
        frames: Sequence[Path],
        pictures: Mapping[int, Mapping[int, Path]],
        masks: MaskOptions | None = None,
    ) -> None:
        """Take the pictures by the number of their frame and the id of their object, and how they are read."""
        super().__init__(name, frames, tuple(sorted(pictures)))
        self._reader = MaskReader(masks)
        self._pictures = pictures

    def annotated_frames(self, object_id: int) -> tuple[int, ...]:
        return tuple(frame for frame in self.annotated if object_id in self._pictures[frame])

    def masks(self, frame: int) -> dict[int, Rle]:
        masks = {}
        for object_id, path in sorted(self._pictures[frame].items()):
            for mask in self._reader.read(path, str(path), is_one_object=True).values():
                masks[object_id] = mask
        _check_one_size(masks, f"The masks of frame {self.frame_name(frame)} of {self.name}")
        return masks


class MaskletVideo(AnnotatedVideo):
    """A video with a JSON file of masklets, every fourth frame or every frame: as in the SA-V training set."""

    def __init__(self, name: str, frames: Sequence[Path] | Path, record_path: Path) -> None:
        """Read the file once, to know which frames are annotated.

        Raises:
            DataError: it is damaged, or of another form.
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
    """What a masklet file holds, with its form checked.

    Attributes:
        frames: of the video.
        stride: from one annotated frame to the next.
        size_hw: of the video.
        object_ids: in the order of a row.
        masklet: a row an annotated frame, of a segmentation an object.
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
    """The last ones are kept, since the masks of a frame are read one frame after the other."""
    return _Masklets(read_json(path), path)


def _check_one_size(masks: Mapping[int, Rle], what: str) -> None:
    sizes = {tuple(mask["size"]) for mask in masks.values()}
    if len(sizes) > 1:
        raise DataError(f"{what} are of different sizes: {sorted(sizes)}, height and width.")
