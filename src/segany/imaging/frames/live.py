"""Frame source for live video, in which the caller pushes frames."""

from __future__ import annotations

from segany.core.arrays import PixelArray
from segany.core.errors import VideoError
from segany.imaging.frames.source import FrameSource
from segany.imaging.image import ImageSource, read_image
from segany.imaging.pixels import AS_STORED, PixelOptions


class LiveFrames(FrameSource):
    """A frame source to which frames are added with `push`. Only the latest frame can be read."""

    def __init__(self, max_pixels: int, pixel_options: PixelOptions = AS_STORED) -> None:
        super().__init__("the live video", (0, 0), None, can_seek=False)
        self._max_pixels, self._pixel_options = max_pixels, pixel_options
        self._latest: PixelArray | None = None
        self.position = -1

    @property
    def count(self) -> int | None:
        return None

    def push(self, frame: ImageSource) -> int:
        """Add the next frame. Returns its number."""
        pixels = read_image(frame, self._max_pixels, options=self._pixel_options)
        size_hw = (pixels.shape[0], pixels.shape[1])
        if self.position < 0:
            self.size_hw = size_hw
        elif size_hw != self.size_hw:
            raise VideoError(
                f"Frame {self.position + 1} is {size_hw[1]} wide and {size_hw[0]} high, but the first one was "
                f"{self.size_hw[1]} wide and {self.size_hw[0]} high. All frames must be of one size."
            )
        self._latest = pixels
        self.position += 1
        return self.position

    def _read(self, index: int) -> PixelArray:
        if self._latest is None or index != self.position:
            newest = "there is none yet" if self._latest is None else f"the latest is {self.position}"
            raise VideoError(f"Frame {index} of the live video cannot be read: {newest}.")
        return self._latest

    def _close(self) -> None:
        self._latest = None
