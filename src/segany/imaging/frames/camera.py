"""Frames of a camera, read with PyAV."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from segany.core.arrays import PixelArray
from segany.core.errors import VideoError
from segany.core.extras import import_av
from segany.imaging.frames.stream import StreamFrames

CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's input format for cameras, by platform."""


CAMERA_OPTIONS = {"avfoundation": {"framerate": "30"}}
"""AVFoundation requests 29.97 frames per second by default, which most cameras do not have."""

CLOSE_SECONDS = 2.0
"""Time that `close` waits for the reading thread to end."""


def open_camera(index: int, max_pixels: int) -> StreamFrames:
    """Open a camera. Each frame is the latest one, so that slow processing skips frames instead of lagging behind.

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
        container = av.open(device, format=device_format, container_options=CAMERA_OPTIONS.get(device_format, {}))
        stream = container.streams.video[0]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(
            f"{name} ({device}) cannot be used: {getattr(error, 'strerror', None) or error}. Check that it is "
            "connected, that no other program uses it, and that you have permission."
        ) from error
    rate = float(stream.average_rate) if stream.average_rate else None
    frames = LatestFrames(_camera_frames(av, container, name))
    try:
        return StreamFrames(frames, name, max_pixels, rate)
    except BaseException:
        frames.close()
        raise


def _camera_device(av: Any, index: int, name: str) -> tuple[str, str]:
    """Return FFmpeg's device name of a camera, and the input format."""
    device_format = CAMERA_FORMATS.get(sys.platform)
    if device_format is None:
        raise VideoError(f"{name} cannot be used: cameras are not supported on {sys.platform}. Give a video file.")
    if device_format == "v4l2":
        return f"/dev/video{index}", device_format
    if device_format == "avfoundation":
        return str(index), device_format
    if not hasattr(av, "enumerate_input_devices"):  # DirectShow cameras are opened by name
        raise VideoError(f"{name} cannot be used: this release of PyAV cannot list cameras. Install a newer one.")
    cameras = [item for item in av.enumerate_input_devices(device_format) if "video" in item.media_types]
    if index >= len(cameras):
        known = ", ".join(f"{number}: {item.description}" for number, item in enumerate(cameras))
        raise VideoError(f"{name} does not exist. There are these: {known or 'none'}.")
    return f"video={cameras[index].name}", device_format


def _camera_frames(av: Any, container: Any, name: str) -> Iterator[Any]:
    with contextlib.closing(container):
        try:
            yield from container.decode(video=0)
        except av.error.FFmpegError as error:
            raise VideoError(f"{name} stopped: {error.strerror or error}. Check that it is still connected.") from error


class LatestFrames(Iterator[PixelArray]):
    """Reads frames in a thread and returns the latest frame that was not returned yet.

    Camera drivers queue hundreds of frames, so that a slow reader would lag further and further behind.
    """

    def __init__(self, frames: Iterator[Any]) -> None:
        """Start the thread, which reads an iterator of PyAV frames and closes it at the end."""
        self._changed = threading.Condition()
        self._newest: Any = None
        self._error: BaseException | None = None
        self._has_ended = self._is_closed = False
        self._thread = threading.Thread(target=self._take, args=(frames,), name="camera", daemon=True)
        self._thread.start()

    def __next__(self) -> PixelArray:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._has_ended)
            frame, self._newest = self._newest, None
        if frame is not None:
            pixels: PixelArray = frame.to_ndarray(format="rgb24")
            return pixels
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread."""
        self._is_closed = True
        self._thread.join(CLOSE_SECONDS)

    def _take(self, frames: Iterator[Any]) -> None:
        try:
            with contextlib.closing(frames):  # type: ignore[type-var]
                for frame in frames:
                    with self._changed:
                        self._newest = frame
                        self._changed.notify_all()
                    if self._is_closed:
                        return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
