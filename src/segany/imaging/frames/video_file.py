"""Frame source for video files with random access, read with PyAV."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from segany.core.arrays import IntArray, PixelArray, SizeHW
from segany.core.errors import VideoError
from segany.core.extras import import_av
from segany.imaging.frames.source import FrameSource
from segany.imaging.frames.video_index import VideoIndex, index_video

WINDOW_BYTES = 128 * 2**20
"""Memory for the decoded frames that are kept when reading backward."""

WINDOW_FRAMES = 8, 64
"""Lower and upper limit of the number of these frames."""

FORWARD_FRAMES = 2
"""Number of decoded frames that are kept when reading forward: the latest and the previous one."""

SKIP_FRAMES = 16
"""Reading forward seeks to a keyframe only if that saves decoding more frames than this."""

RATE_TOLERANCE = 0.02
"""Largest relative difference between the nominal frame rate and that of the timestamps, which are rounded."""

CONTAINER_FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif", "apng", "mxf", "nut", "ivf", "dv", "rm",
    "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "vc1", "wtv", "yuv4mpegpipe", "amv", "swf", "nsv", "roq",
)  # fmt: skip
"""FFmpeg formats that may be opened. Others are text, devices, or playlists, which could open other files."""


class VideoFileFrames(FrameSource):
    """The frames of a video file. Reading them in order decodes the file once.

    Frames are numbered by their presentation timestamps, which handles B-frames, variable frame rates and files that
    do not begin at time zero. Reading backward decodes from the previous keyframe and keeps a window of decoded frames
    for the next reads.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        """Open a file, index its packets, and decode the first frame."""
        self._av = import_av()
        self._path = path
        self._max_pixels = max_pixels
        self._container = self._opened()
        self._window: dict[int, Any] = {}  # decoded frames, ascending
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._next = 0
        # One reformatter for all frames: each has its own threads, which would live as long as the frame.
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._matrices: dict[float, IntArray] = {}
        try:
            self._stream = self._video_stream()
            super().__init__(str(path), (1, 1), None, can_seek=True)
            self._index = index_video(self._av, self._container, self._stream)
            self.frame_rate = self._rate()
            first = self._first_frame()
            self.size_hw = self._size_of(first)
            self.pixel_aspect = self._pixel_aspect_of(first)
            if self._index.is_cut:
                self._find_end()
        except BaseException:
            self._close()  # the threads of the decoders would live until garbage collection
            raise

    @property
    def count(self) -> int:
        return len(self._index)

    @property
    def window_frames(self) -> int:
        """Number of decoded frames in memory."""
        return len(self._window)

    def _read(self, index: int) -> PixelArray:
        frame = self._shown_at(index)
        if frame is None:
            self._decode_to(index)
            frame = self._shown_at(index)
        if frame is None:
            raise self._past_end(index)
        try:
            return self._upright(frame)
        except self._av.error.FFmpegError as error:
            raise VideoError(f"{self.frame_label(index)} cannot be converted to RGB: {error.strerror}.") from error

    def _shown_at(self, index: int) -> Any | None:
        """Return the frame with that number from the window; for a damaged frame, the previous one."""
        if index >= self._next:
            return None
        return next((self._window[number] for number in reversed(self._window) if number <= index), None)

    def _close(self) -> None:
        self._window.clear()
        self._frames = iter(())
        self._container.close()

    def _opened(self) -> Any:
        try:
            # With the prefix "file:", a colon in the name is not taken for a protocol. Only container options are
            # given: some releases of PyAV crash on stream options for an MPEG program stream.
            options = {
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(CONTAINER_FORMATS),
                "fflags": "+genpts",
            }
            # Metadata such as titles is not used, so it need not be valid UTF-8.
            return self._av.open(f"file:{self._path}", container_options=options, metadata_errors="replace")
        except (self._av.error.InvalidDataError, self._av.error.ArgumentError) as error:
            with self._path.open("rb") as file:
                head = file.read(12)
            if head[:4] == b"RIFF" and head[8:] == b"WEBP":
                raise VideoError(
                    f"{self._path} is an image or animation in WebP, which is not read as a video. Convert it to mp4."
                ) from error
            raise VideoError(f"{self._path} is not a video, or it is damaged where it begins.") from error
        except self._av.error.EOFError as error:
            raise VideoError(f"{self._path} has no frames: it ends after its header.") from error
        except (self._av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path} cannot be opened as a video: {error.strerror or error}.") from error

    def _video_stream(self) -> Any:
        """Return the first video stream; raises `VideoError` if it cannot be decoded or is too large."""
        name = self._container.format.name
        streams = [item for item in self._container.streams.video if not _is_cover(item)]
        if not streams and self._container.streams.audio:
            raise VideoError(f"{self._path} has no video: it holds sound alone.")
        if not streams and name.startswith("mov"):
            raise VideoError(
                f"{self._path} has no table of frames. It is not a video, or was cut off: most mp4 files have that "
                "table at their end. `ffmpeg -movflags faststart` writes files that have it at their beginning."
            )
        if not streams:
            raise VideoError(f"{self._path} is not a video: it has no pictures.")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise VideoError(f"{self._path} uses a codec that this PyAV cannot decode. Convert it to H.264 first.")
        if context.width * context.height > self._max_pixels:
            raise VideoError(
                f"The frames of {self._path} have {context.width * context.height:,} pixels ({context.width} x "
                f"{context.height}), more than the limit of {self._max_pixels:,}. Raise max_pixels if you trust it."
            )
        return stream

    def _rate(self) -> float | None:
        """Return the nominal frame rate if it agrees with the timestamps, else the frame rate of the timestamps."""
        told = float(self._stream.average_rate or self._stream.guessed_rate or 0) or None
        measured = self._index.frame_rate(float(self._stream.time_base or 0))
        if told and measured and abs(told - measured) > RATE_TOLERANCE * measured:
            return measured
        return told or measured

    def _first_frame(self) -> Any:
        """Decode the first decodable frame. Packets before it depend on missing frames and are dropped."""
        self._start_at(0)
        first = next(self._frames, None)
        if first is None:
            raise VideoError(f"{self._path} has no frames that can be decoded. It is damaged, or not a video.")
        number, frame = first
        if number:
            self._index = self._index.without_first(number)
            self._start_at(0)
        else:
            self._keep(0, frame, FORWARD_FRAMES)
        return frame

    def _find_end(self) -> None:
        """Decode the last frames of a truncated file, to find the last decodable one."""
        self._decode_to(len(self._index) - 1)
        self._warn(
            f"{self.name} is cut off: it tells of more than is there. Its {self.count} readable frames are used."
        )

    def _decode_to(self, index: int) -> None:
        """Decode until the window has that frame, or until the end."""
        keyframe = self._index.keyframe_before(index)
        is_back = index < self._next
        if is_back or keyframe - self._next > SKIP_FRAMES:
            self._start_at(index)
        while self._next <= index:
            number, frame = next(self._frames, (None, None))
            if number is None:
                self._end_at(self._next)
                return
            self._keep(number, frame, _window_length(frame) if is_back else FORWARD_FRAMES)

    def _keep(self, number: int, frame: Any, length: int) -> None:
        """Add a decoded frame to the window, which keeps the latest ones."""
        if number > self._next:
            self._warn(f"{self.name}: frames {self._next} to {number - 1} are damaged and repeat their neighbor.")
        # Frame numbers must not shift: a damaged frame is replaced by the previous one, and at the start by the next.
        self._window[number if self._window else self._next] = frame
        self._next = number + 1
        for old in list(self._window)[:-length]:
            del self._window[old]

    def _end_at(self, count: int) -> None:
        """Record that fewer frames can be decoded than there are packets."""
        if count < len(self._index):
            missing = len(self._index) - count
            self._warn(f"{self.name}: the last {missing} of {len(self._index)} frames are damaged and left out.")
            index = self._index
            keyframes = index.keyframes[index.keyframes < max(count, 1)]
            self._index = VideoIndex(index.times[:count], keyframes, index.has_times, index.is_cut)

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def _start_at(self, index: int) -> None:
        """Decode from the last keyframe whose first decoded frame is that frame or an earlier one."""
        self._window.clear()
        keyframes = self._index.keyframes
        for keyframe in keyframes[(keyframes > 0) & (keyframes <= index)][::-1].tolist():
            frames = self._frames_from(keyframe)
            first = next(frames, None)
            # Seeking may land too late, and the first frames after some keyframes cannot be decoded.
            if first is not None and first[0] <= index:
                self._next, self._frames = first[0], itertools.chain([first], frames)
                return
        self._container.close()
        self._container = self._opened()
        self._stream = self._video_stream()
        self._next, self._frames = 0, self._decoded(self._container.demux(self._stream), 0)

    def _frames_from(self, keyframe: int) -> Iterator[tuple[int, Any]]:
        """Seek to a keyframe and decode; yields nothing if the file is not seekable."""
        with contextlib.suppress(self._av.error.FFmpegError):
            self._container.seek(int(self._index.times[keyframe]), stream=self._stream)
            packets = self._container.demux(self._stream)
            for packet in packets:  # those before a keyframe could not be decoded without one
                landed = self._index.find(packet.pts) if packet.is_keyframe and packet.size else None
                if landed is not None:
                    return self._decoded(itertools.chain([packet], packets), landed)
        return iter(())

    def _decoded(self, packets: Iterator[Any], first: int) -> Iterator[tuple[int, Any]]:
        """Decode packets to pairs of frame number and frame, ascending from `first`."""
        counted = first
        for frame in self._decode(packets):
            number = self._index.find(frame.pts) if self._index.has_times else counted
            # Frames before the keyframe in time refer to others that were not decoded.
            if number is not None and number >= counted:
                yield number, frame
                counted = number + 1

    def _decode(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yield all decodable frames; damaged packets are skipped."""
        is_flushed = False
        while not is_flushed:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError:  # the file is truncated
                packet = None
            is_flushed = packet is None or packet.size == 0
            try:
                yield from self._stream.codec_context.decode(None if is_flushed else packet)
            except self._av.error.FFmpegError:
                continue  # skip a damaged packet

    def _size_of(self, frame: Any) -> SizeHW:
        is_turned = _swaps_axes(self._display_matrix(frame))
        return (frame.width, frame.height) if is_turned else (frame.height, frame.width)

    def _pixel_aspect_of(self, frame: Any) -> Fraction:
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if aspect <= 0:  # some files use it for "unknown"
            return Fraction(1)
        return 1 / Fraction(aspect) if _swaps_axes(self._display_matrix(frame)) else Fraction(aspect)

    def _display_matrix(self, frame: Any) -> IntArray:
        """Cache `_display_matrix` by angle: reading side data keeps a frame alive until garbage collection."""
        angle = float(frame.rotation)
        if angle not in self._matrices:
            self._matrices[angle] = _display_matrix(frame)
        return self._matrices[angle]

    def _upright(self, frame: Any) -> PixelArray:
        """Convert a frame to RGB, uint8 [H, W, 3], rotated by the display matrix to a multiple of 90 degrees."""
        pixels: PixelArray = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        matrix = self._display_matrix(frame)
        if _swaps_axes(matrix):
            pixels, matrix = pixels.transpose(1, 0, 2), matrix[::-1]
        if matrix[0, 0] < 0:
            pixels = pixels[:, ::-1]
        if matrix[1, 1] < 0:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def _is_cover(stream: Any) -> bool:
    """Whether a stream is cover art."""
    return "attached_pic" in str(stream.disposition).lower()


def _window_length(frame: Any) -> int:
    """Return the number of frames of this size that the window keeps."""
    size: int = sum(plane.buffer_size for plane in frame.planes)
    least, most = WINDOW_FRAMES
    return min(most, max(least, WINDOW_BYTES // max(1, size)))


def _display_matrix(frame: Any) -> IntArray:
    """Return the display matrix (rotation and mirroring), int64 [2, 2], in units of 1 / 65536."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # the frame has side data unknown to PyAV, which then gives only the angle
        radians = math.radians(frame.rotation)  # counterclockwise
        cos, sin = math.cos(radians), math.sin(radians)
        return np.asarray(np.rint(65536 * np.array([[cos, -sin], [sin, cos]])), dtype=np.int64)
    if matrix is None:
        return np.eye(2, dtype=np.int64)
    return np.frombuffer(bytes(matrix), dtype=np.int32).reshape(3, 3)[:2, :2].astype(np.int64)


def _swaps_axes(matrix: IntArray) -> bool:
    """Whether a display matrix swaps rows and columns."""
    return bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))
