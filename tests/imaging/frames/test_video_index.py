"""The index of a video file, for what no encoder here writes."""

from types import SimpleNamespace

import numpy as np

from segany.imaging.frames.video_index import VideoIndex, index_video

AV = SimpleNamespace(error=SimpleNamespace(FFmpegError=OSError))


class Packet(SimpleNamespace):
    data: bytes

    def __bytes__(self) -> bytes:
        return self.data


def packet(pts: int | None, data: bytes = b"\x10", **facts) -> Packet:
    values = {"is_keyframe": False, "is_discard": False, "is_corrupt": False, "stream_index": 0, "duration": 1}
    return Packet(**{**values, **facts}, pts=pts, data=data, size=len(data), time_base=1)


def index(*packets: Packet, codec: str = "h264", frames: int = 0) -> VideoIndex:
    container = SimpleNamespace(demux=lambda: iter(packets), duration=None, format=SimpleNamespace(name="x"))
    stream = SimpleNamespace(index=0, frames=frames, codec_context=SimpleNamespace(name=codec))
    return index_video(AV, container, stream)


def test_hidden_frames_of_vp8_do_not_count() -> None:
    key, hidden, shown = b"\x10\x02\x00", b"\x01\x02\x00", b"\x11\x02\x00"
    packets = packet(0, key, is_keyframe=True), packet(33, shown), packet(34, hidden), packet(67, shown)
    assert index(*packets, codec="vp8").times.tolist() == [0, 33, 67]
    assert index(*packets, codec="h264").times.tolist() == [0, 33, 34, 67]


def test_frames_that_are_not_shown_and_other_streams_do_not_count() -> None:
    made = index(
        packet(0, is_keyframe=True), packet(1, stream_index=1), packet(2), packet(3, is_discard=True), packet(None, b"")
    )
    assert made.times.tolist() == [0, 2]
    assert not made.is_cut


def test_order_and_keyframes() -> None:
    made = index(packet(0, is_keyframe=True), packet(3), packet(1), packet(6, is_keyframe=True), packet(5), packet(7))
    assert made.times.tolist() == [0, 1, 3, 5, 6, 7]
    assert made.keyframes.tolist() == [0, 4]
    assert [made.keyframe_before(item) for item in range(6)] == [0, 0, 0, 0, 4, 4]
    assert [made.find(time) for time in (3, 4, 7, 8, None)] == [2, None, 5, None, None]
    later = made.without_first(2)
    assert (later.times.tolist(), later.keyframes.tolist()) == ([3, 5, 6, 7], [0, 2])


def test_times_that_cannot_be_trusted_are_counted() -> None:
    for times in ((None, None, None), (0, 1, 1), (0, None, 2)):
        made = index(*(packet(time, is_keyframe=True) for time in times))
        assert not made.has_times
        assert made.times.tolist() == [0, 1, 2]
        assert made.keyframes.tolist() == [0]


def test_signs_of_a_file_that_is_cut_off() -> None:
    assert index(packet(0), packet(1), frames=3).is_cut
    assert not index(packet(0), packet(1), frames=2).is_cut
    damaged = index(packet(0), packet(1, is_corrupt=True), packet(2), packet(3, is_corrupt=True))
    assert damaged.is_cut
    assert damaged.times.tolist() == [0, 1, 2]
    assert isinstance(damaged.times, np.ndarray)
