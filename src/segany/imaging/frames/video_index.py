"""The frame index of a video file, built from its packets without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segany.core.arrays import IntArray

HAS_DURATION = ("matroska", "flv", "avi")
"""Formats whose header contains the duration of the complete file. The header of mp4 has the number of frames."""

DURATION_SLACK = 0.5
"""Seconds by which a file may be shorter than the duration in its header before it counts as truncated."""


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of a video file in presentation order, according to its packets.

    Attributes:
        times: int64 [T], ascending presentation timestamps (PTS) in the time base of the stream; 0 to T - 1 if the
            file has no reliable timestamps (raw streams).
        keyframes: int64 [K], ascending numbers of the keyframes; the first is 0.
        has_times: whether `times` are timestamps of the file.
        is_cut: whether the file is truncated.
    """

    times: IntArray
    keyframes: IntArray
    has_times: bool
    is_cut: bool

    def __len__(self) -> int:
        return len(self.times)

    def find(self, time: int | None) -> int | None:
        """Return the number of the frame with a presentation timestamp; None if there is none."""
        if time is None:
            return None
        index = int(np.searchsorted(self.times, time))
        return index if index < len(self.times) and self.times[index] == time else None

    def keyframe_before(self, index: int) -> int:
        """Return the last keyframe up to `index`."""
        return int(self.keyframes[np.searchsorted(self.keyframes, index, side="right") - 1])

    def frame_rate(self, time_base: float) -> float | None:
        """Return the average frames per second, given the time base in seconds; None if it is unknown."""
        if not self.has_times or not time_base or len(self) < 2:
            return None
        return (len(self) - 1) / (float(self.times[-1] - self.times[0]) * time_base)

    def without_first(self, count: int) -> VideoIndex:
        """Drop the first `count` frames, which cannot be decoded."""
        later = self.keyframes[self.keyframes > count] - count
        return VideoIndex(self.times[count:], np.append(np.int64(0), later), self.has_times, self.is_cut)


def index_video(av: Any, container: Any, stream: Any) -> VideoIndex:
    """Read all packets of a container and index the frames of one stream. The container is at its end afterwards."""
    times: list[int | None] = []
    is_key: list[bool] = []
    packets, damaged_tail, end = 0, 0, 0.0
    is_cut = False
    try:
        for packet in container.demux():
            if packet.size == 0:  # the flush packet that PyAV adds at the end of a stream
                continue
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            packets += 1
            if packet.is_discard or _is_hidden(packet, stream):
                continue
            damaged_tail = damaged_tail + 1 if packet.is_corrupt else 0
            times.append(packet.pts)
            is_key.append(packet.is_keyframe)
    except av.error.FFmpegError:
        is_cut = True
    if damaged_tail:
        is_cut = True
        del times[-damaged_tail:], is_key[-damaged_tail:]
    is_cut = is_cut or packets < stream.frames or _is_shorter_than_told(container, end)
    return _sorted_index(times, is_key, is_cut=is_cut)


def _sorted_index(times: list[int | None], is_key: list[bool], *, is_cut: bool) -> VideoIndex:
    known = [time for time in times if time is not None]
    if len(set(known)) < len(times):
        # Timestamps are missing or not unique. Frames can only be counted while decoding from the start.
        return VideoIndex(np.arange(len(times)), np.zeros(1, dtype=np.int64), has_times=False, is_cut=is_cut)
    order = np.argsort(np.array(known, dtype=np.int64))
    keyframes = np.flatnonzero(np.array(is_key, dtype=np.bool_)[order])
    starts = np.unique(np.append(np.int64(0), keyframes))
    return VideoIndex(np.array(known, dtype=np.int64)[order], starts, has_times=True, is_cut=is_cut)


def _is_hidden(packet: Any, stream: Any) -> bool:
    """Tell whether a packet is an invisible reference frame of VP8 (RFC 6386, section 9.1)."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & 0x10


def _is_shorter_than_told(container: Any, end: float) -> bool:
    if not container.duration or not container.format.name.startswith(HAS_DURATION):
        return False
    return bool(container.duration / 1e6 - end > DURATION_SLACK)  # FFmpeg counts it in microseconds
