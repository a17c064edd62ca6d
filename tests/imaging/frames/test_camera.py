"""Cameras: clear errors where there is none, and the newest frame where work is slow."""

import queue
import sys
from collections.abc import Iterator

import av
import numpy as np
import pytest

from segany.core.errors import VideoError
from segany.imaging.frames import FrameSource, camera, open_frames
from segany.imaging.frames.camera import LatestFrames


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


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FFmpeg's test picture in place of a camera: the same kind of device to PyAV."""
    monkeypatch.setattr(camera, "_camera_device", lambda *args: ("testsrc=size=64x48:rate=10", "lavfi"))
    with open_frames(0) as source:
        assert isinstance(source, FrameSource)
        assert (source.size_hw, source.frame_rate, source.count, source.can_seek) == ((48, 64), 10, None, False)
        first, *later = [source.read(index) for index in range(20)]
        assert first.shape == (48, 64, 3)
        assert any((first != frame).any() for frame in later)
        with pytest.raises(VideoError, match="cannot go back"):
            source.read(0)


class Driver:
    """Delivers frames when it is told to."""

    def __init__(self) -> None:
        self.waiting: queue.Queue = queue.Queue()
        self.is_closed = False

    def frames(self) -> Iterator[av.VideoFrame]:
        try:
            while (item := self.waiting.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield av.VideoFrame.from_ndarray(np.full((2, 2, 3), item, np.uint8))
        finally:
            self.is_closed = True


def test_slow_work_sees_the_newest_frame() -> None:
    driver = Driver()
    newest = LatestFrames(driver.frames())
    driver.waiting.put(1)
    assert next(newest)[0, 0, 0] == 1
    for number in (2, 3, 4, None):
        driver.waiting.put(number)
    newest._thread.join(5)
    assert [frame[0, 0, 0] for frame in newest] == [4]
    assert driver.is_closed


def test_an_error_of_the_camera_comes_after_its_last_frame() -> None:
    driver = Driver()
    for item in (1, VideoError("Camera 0 stopped.")):
        driver.waiting.put(item)
    newest = LatestFrames(driver.frames())
    newest._thread.join(5)
    assert next(newest)[0, 0, 0] == 1
    with pytest.raises(VideoError, match="stopped"):
        next(newest)


def test_closing_lets_go_of_the_camera() -> None:
    driver = Driver()
    newest = LatestFrames(driver.frames())
    driver.waiting.put(1)
    next(newest)
    driver.waiting.put(2)
    newest._is_closed = True
    driver.waiting.put(3)
    newest.close()
    assert not newest._thread.is_alive()
    assert driver.is_closed
