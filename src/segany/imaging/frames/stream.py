"""Frame source for an iterator, which is read forward only."""

from __future__ import annotations

from collections.abc import Iterator

from segany.core.arrays import PixelArray
from segany.core.errors import VideoError
from segany.imaging.frames.source import FrameSource
from segany.imaging.image import ImageSource, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions


class StreamFrames(FrameSource):
    """A frame source for an iterator of images. Only the latest frame can be read again."""

    def __init__(
        self,
        images: Iterator[ImageSource],
        name: str,
        max_pixels: int,
        frame_rate: float | None = None,
        pixel_options: PixelOptions = AS_STORED,
    ) -> None:
        """Open an iterator. The first frame is read, since it determines the size of all frames."""
        try:
            first = read_image(next(images), max_pixels, options=pixel_options)
        except StopIteration:
            raise VideoError(f"{name} has no frames: it ended before the first one.") from None
        super().__init__(name, (first.shape[0], first.shape[1]), frame_rate, can_seek=False)
        self._images = images
        self._max_pixels, self._pixel_options = max_pixels, pixel_options
        self._latest, self._position = first, 0
        self._ended = False

    @property
    def count(self) -> int | None:
        return self._position + 1 if self._ended else None

    def _read(self, index: int) -> PixelArray:
        if index < self._position:
            raise VideoError(
                f"{self.name} is at frame {self._position} and cannot go back to frame {index}: its frames come once. "
                "Give a list, a folder or a video file to go back."
            )
        while self._position < index:
            try:
                image = next(self._images)
            except StopIteration:
                self._ended = True
                raise self._past_end(index) from None
            self._latest = read_image(image, self._max_pixels, options=self._pixel_options)
            self._position += 1
        return self._latest

    def _close(self) -> None:
        close = getattr(self._images, "close", None)  # generators have it, to release their resources
        if close is not None:
            close()
