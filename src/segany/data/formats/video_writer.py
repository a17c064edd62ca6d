"""A writer of video files, with PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from segany.core.arrays import PixelArray, SizeHW
from segany.core.extras import import_av
from segany.core.files import replacing, write_error

CODECS = {"libx264": {"preset": "veryfast", "crf": "18"}, "mpeg4": {}}
"""Codecs in order of preference, and their options. H.264 plays everywhere, but not every FFmpeg build has it."""

MPEG4_BITS = 0.3
"""Bits per pixel of MPEG-4, which has no quality setting in FFmpeg like H.264's crf."""

KEYFRAME_SECONDS = 2.0
"""Interval between keyframes, to which players can seek."""

MAX_DENOMINATOR = 1001
"""Largest denominator of frame rates, as in NTSC rates. MPEG-4 does not allow much larger ones."""

SQUARE = Fraction(1)
"""The pixel aspect ratio of nearly all videos."""

MAX_ASPECT_TERM = 255
"""Largest term of a pixel aspect ratio, for which MPEG-4 has eight bits."""

BT709 = 1
"""FFmpeg's number for the colors of HD video."""


class VideoWriter:
    """Encodes frames of one size. The file is complete only after `close`."""

    def __init__(
        self, file: Path, path: Path, size_hw: SizeHW, frame_rate: float, pixel_aspect: Fraction = SQUARE
    ) -> None:
        """Open a file for writing.

        Args:
            file: path of the file. The format is mp4, whatever the suffix.
            path: path that error messages name.
            size_hw: size of the frames. Odd sides are made even by repeating the last row or column.
            frame_rate: frames per second.
            pixel_aspect: pixel aspect ratio, width to height.
        """
        self._av = import_av()
        self._size_hw = size_hw
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        rate = Fraction(frame_rate).limit_denominator(MAX_DENOMINATOR)
        with _av_errors(self._av, path):
            self._container = self._av.open(str(file), "w", format="mp4")
            stream = self._container.add_stream(codec, rate=rate, options=CODECS[codec])
            stream.height, stream.width = (side + side % 2 for side in size_hw)
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.sample_aspect_ratio = pixel_aspect.limit_denominator(MAX_ASPECT_TERM)
            context.gop_size = max(1, round(KEYFRAME_SECONDS * frame_rate))
            context.colorspace = context.color_primaries = context.color_trc = BT709
            if codec == "mpeg4":
                context.bit_rate = int(MPEG4_BITS * stream.height * stream.width * frame_rate)
        self._path, self._stream = path, stream

    def write(self, pixels: PixelArray, number: int) -> None:
        """Encode a frame, uint8 [H, W, 3], that is shown `number` frames after the first. Numbers must ascend."""
        height, width = self._size_hw
        even = (
            np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if (height | width) % 2 else pixels
        )
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts = number
        frame.time_base = 1 / Fraction(self._stream.codec_context.framerate)
        with _av_errors(self._av, self._path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode pending frames and close the file."""
        with _av_errors(self._av, self._path):
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()


@contextlib.contextmanager
def new_video(path: Path, size_hw: SizeHW, frame_rate: float, pixel_aspect: Fraction = SQUARE) -> Iterator[VideoWriter]:
    """A video file that is written atomically: it is at `path` after the `with` block, unless the block raises.

    Raises:
        OutputError: the file could not be written.
        MissingExtraError: PyAV is not installed.
    """
    import_av()  # a missing package should fail before a temporary file is created
    with replacing(path) as temporary:
        writer = VideoWriter(temporary, path, size_hw, frame_rate, pixel_aspect)
        try:
            yield writer
        finally:
            writer.close()


@contextlib.contextmanager
def _av_errors(av: Any, path: Path) -> Iterator[None]:
    """Convert FFmpeg's errors to `OutputError`."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise write_error(path, error) from error
