"""Cameras: clear errors where there is none, and the newest frame where work is slow."""

import queue
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import av
import numpy as np
import pytest

from segany.core.errors import EndOfVideoError, VideoError
from segany.imaging.frames import FrameSource, open_frames


def test_no_such_camera() -> None:
    with pytest.raises(VideoError, match=r"Camera 97 .*cannot be used"):
        open_frames(97)


def test_no_cameras_on_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(VideoError, match="not supported on plan9"):
        open_frames(0)


def test_windows_cameras_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(av, "enumerate_input_devices", lambda device_format: [], raising=False)
    with pytest.raises(VideoError, match=r"Camera 0 does not exist\. There are these: none"):
        open_frames(0)


def test_windows_cameras_need_a_pyav_that_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(av, "enumerate_input_devices", raising=False)
    with pytest.raises(VideoError, match="this release of PyAV cannot list cameras"):
        open_frames(0)


def test_a_camera_is_an_endless_source_that_cannot_seek(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's test picture replaces the device."""
    open_device = av.open

    def open_test_picture(device: str, format: str, container_options: dict[str, str]) -> object:  # noqa: A002
        assert (device, format, container_options) == ("/dev/video3", "v4l2", {})
        return open_device("testsrc=size=64x48:rate=10", format="lavfi")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "open", open_test_picture)
    with open_frames(3) as source:
        assert isinstance(source, FrameSource)
        assert (source.size_hw, source.frame_rate, source.count, source.can_seek) == ((48, 64), 10, None, False)
        first, *later = [source.read(index) for index in range(20)]
        assert first.shape == (48, 64, 3)
        assert any((first != frame).any() for frame in later)
        with pytest.raises(VideoError, match="cannot go back"):
            source.read(0)


class Camera:
    """A container of PyAV whose device delivers frames of one gray level, or raises an error, when a test says so."""

    def __init__(self) -> None:
        self.streams = SimpleNamespace(video=[SimpleNamespace(average_rate=30)])
        self.queue: queue.Queue[int | Exception | None] = queue.Queue()
        self.is_closed = threading.Event()

    def deliver(self, *items: int | Exception | None) -> None:
        for item in items:
            self.queue.put(item)

    def decode(self, video: int) -> Iterator[av.VideoFrame]:
        assert video == 0
        while (item := self.queue.get(timeout=60)) is not None:
            if isinstance(item, Exception):
                raise item
            yield av.VideoFrame.from_ndarray(np.full((2, 2, 3), item, np.uint8))

    def close(self) -> None:
        self.is_closed.set()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    device = Camera()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "open", lambda *_, **__: device)
    return device


def test_slow_processing_gets_the_latest_frame(camera: Camera) -> None:
    camera.deliver(1)
    with open_frames(0) as source:
        assert source.read(0)[0, 0, 0] == 1
        camera.deliver(2, 3, 4, None)
        assert camera.is_closed.wait(5)
        assert source.read(1)[0, 0, 0] == 4
        with pytest.raises(EndOfVideoError):
            source.read(2)


def test_an_error_of_the_camera_comes_after_its_last_frame(camera: Camera) -> None:
    camera.deliver(1)
    with open_frames(0) as source:
        camera.deliver(2, av.error.FFmpegError(19, "No such device"))
        assert camera.is_closed.wait(5)
        assert source.read(1)[0, 0, 0] == 2
        with pytest.raises(VideoError, match=r"Camera 0 stopped: No such device"):
            source.read(2)


def test_closing_releases_the_camera(camera: Camera) -> None:
    camera.deliver(1)
    with open_frames(0):
        later = threading.Timer(0.2, camera.deliver, [2])  # a camera delivers frames until it is closed
        later.start()
    later.join()
    assert camera.is_closed.wait(5)
