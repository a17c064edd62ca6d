"""The base class of frame sources: numbered images of one size, decoded on demand."""

from __future__ import annotations

import abc
from fractions import Fraction
from types import TracebackType

from segany.core.arrays import PixelArray, SizeHW
from segany.core.errors import EndOfVideoError, VideoError


class FrameSource(abc.ABC):
    """The frames of a video, numbered from 0 in presentation order. Use it in a `with` block.

    At most a few frames are in memory at a time. A source is not thread-safe.

    Attributes:
        name: name of the video in messages and files.
        size_hw: size of every frame in pixels, after rotation by the display matrix.
        frame_rate: average frames per second; None if unknown, as for images.
        pixel_aspect: sample aspect ratio, the displayed width of a pixel over its height; 1 for most videos.
        can_seek: whether frames can be read in any order. If not, they can be read forward only.
        warnings: defects of the video that do not prevent its use, such as a truncated end.
    """

    def __init__(self, name: str, size_hw: SizeHW, frame_rate: float | None, *, can_seek: bool) -> None:
        self.name = name
        self.size_hw = size_hw
        self.frame_rate = frame_rate
        self.pixel_aspect = Fraction(1)
        self.can_seek = can_seek
        self.warnings: list[str] = []
        self._closed = False

    @property
    @abc.abstractmethod
    def count(self) -> int | None:
        """Number of frames; None while it is unknown.

        At the end of a damaged file it may decrease, and at the end of a stream it becomes known.
        """

    def read(self, index: int) -> PixelArray:
        """Read a frame.

        Args:
            index: its number, from 0.

        Returns:
            uint8 [H, W, 3], RGB. It may share memory with the caller's image: do not write to it.

        Raises:
            EndOfVideoError: the frame lies after the last one.
            VideoError: the number is negative, the frame cannot be read or has another size, the source is closed, or
                it can be read forward only and is past that frame.
            ImageError: the frame is an image that cannot be read.
        """
        if self._closed:
            raise VideoError(f"{self.name} is closed. Open it again to read frames.")
        if index < 0:
            raise VideoError(f"Frame {index} does not exist: frames are numbered from 0.")
        if self.count is not None and index >= self.count:
            raise self._past_end(index)
        pixels = self._read(index)
        height, width = pixels.shape[:2]
        if (height, width) != self.size_hw:
            raise VideoError(
                f"{self.frame_label(index)} is {width} wide and {height} high, but the first frame is "
                f"{self.size_hw[1]} wide and {self.size_hw[0]} high. All frames must be of one size: resize or "
                "leave out those that are not."
            )
        return pixels

    def frame_name(self, index: int) -> str:
        """Return the name of a frame's output files, without a suffix."""
        return f"{index:05d}"

    def frame_file_name(self, index: int) -> str:
        """Return the file name of a frame with its suffix; for frames that are not files, `frame_name` and ".jpg"."""
        return f"{self.frame_name(index)}.jpg"

    def frame_label(self, index: int) -> str:
        """Return the name of a frame in messages."""
        return f"Frame {index} of {self.name}"

    def close(self) -> None:
        """Release files and devices. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _read(self, index: int) -> PixelArray:
        """Read a frame; `index` is below `count`, if that is known."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release files and devices; called once."""

    def _past_end(self, index: int) -> EndOfVideoError:
        count = self.count or 0
        frames = "1 frame, number 0" if count == 1 else f"{count} frames, 0 to {count - 1}"
        return EndOfVideoError(f"Frame {index} does not exist: {self.name} has {frames}.")
