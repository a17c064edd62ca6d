"""Frames that come once, in order: iterators of arrays, and cameras."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from segany.errors import VideoError
from segany.frames.pyav import import_av
from segany.frames.source import FrameSource
from segany.images import ImageSource, read_image
from segany.types import PixelArray

CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's name for the cameras of a platform."""


CAMERA_OPTIONS = {"avfoundation": {"framerate": "30"}}
"""The rate it asks for of its own accord, 29.97, is one that most cameras do not have."""


class StreamFrames(FrameSource):
    """The frames of an iterator. The latest frame may be read again, earlier ones are gone."""

    def __init__(
        self, images: Iterator[ImageSource], name: str, max_pixels: int, frame_rate: float | None = None
    ) -> None:
        """Take the first frame, to know the size."""
        try:
            first = read_image(next(images), max_pixels)
        except StopIteration:
            raise VideoError(f"{name} has no frames: it ended before the first one.") from None
        super().__init__(name, (first.shape[0], first.shape[1]), frame_rate, can_seek=False)
        self._images = images
        self._max_pixels = max_pixels
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
            self._latest = read_image(image, self._max_pixels)
            self._position += 1
        return self._latest

    def _close(self) -> None:
        close = getattr(self._images, "close", None)  # generators have it, and let go of what they hold
        if close is not None:
            close()


def open_camera(index: int, max_pixels: int) -> StreamFrames:
    """The frames of a camera, as they come.

    Args:
        index: which camera, from 0.
        max_pixels: refuse frames of more pixels.

    Raises:
        VideoError: there is no such camera, it is in use or may not be used, or this platform has none.
        MissingExtraError: PyAV is not installed.
    """
    av = import_av()
    name = f"Camera {index}"
    device, device_format = _camera_device(av, index, name)
    try:
        container = av.open(device, format=device_format, options=CAMERA_OPTIONS.get(device_format, {}))
        stream = container.streams.video[0]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(
            f"{name} ({device}) cannot be used: {getattr(error, 'strerror', None) or error}. Check that it is "
            "connected, that no other program uses it, and that you have permission."
        ) from error
    rate = float(stream.average_rate) if stream.average_rate else None
    try:
        return StreamFrames(_camera_frames(av, container, name), name, max_pixels, rate)
    except BaseException:
        container.close()
        raise


def _camera_device(av: Any, index: int, name: str) -> tuple[str, str]:
    """What FFmpeg calls that camera, and the format it reads it with."""
    device_format = CAMERA_FORMATS.get(sys.platform)
    if device_format is None:
        raise VideoError(f"{name} cannot be used: cameras are not supported on {sys.platform}. Give a video file.")
    if device_format == "v4l2":
        return f"/dev/video{index}", device_format
    if device_format == "avfoundation":
        return str(index), device_format
    cameras = [item for item in av.enumerate_input_devices(device_format) if "video" in item.media_types]
    if index >= len(cameras):
        known = ", ".join(f"{number}: {item.description}" for number, item in enumerate(cameras))
        raise VideoError(f"{name} does not exist. There are these: {known or 'none'}.")
    return f"video={cameras[index].name}", device_format


def _camera_frames(av: Any, container: Any, name: str) -> Iterator[PixelArray]:
    with contextlib.closing(container):
        try:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
        except av.error.FFmpegError as error:
            raise VideoError(f"{name} stopped: {error.strerror or error}. Check that it is still connected.") from error
