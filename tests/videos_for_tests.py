"""Little videos whose every frame tells its number: as 8 large blocks, black for 0 and white for 1."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from segany.core.arrays import PixelArray

BLOCK = 16
SIZE_HW = 2 * BLOCK, 4 * BLOCK


def numbered_frame(number: int, size_hw: tuple[int, int] = SIZE_HW) -> PixelArray:
    """uint8 [H, W, 3]; the block of the lowest bit is top left."""
    frame = np.full((*size_hw, 3), 128, dtype=np.uint8)
    for bit in range(8):
        row, column = divmod(bit, 4)
        frame[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def number_in(frame: PixelArray) -> int:
    """Which number a frame shows; it must do so clearly."""
    blocks = frame[: 2 * BLOCK].mean(axis=2).reshape(2, BLOCK, -1, BLOCK)[:, :, :4].mean(axis=(1, 3)).reshape(-1)
    assert ((blocks < 64) | (blocks > 192)).all(), blocks
    return int(((blocks > 128) << np.arange(8)).sum())


def write_video(
    path: Path,
    count: int = 40,
    *,
    codec: str = "libx264",
    b_frames: int = 2,
    gop: int = 12,
    times: Sequence[int] | None = None,
    rate: int = 30,
    rotation: int = 0,
    is_mirrored: bool = False,
    size_hw: tuple[int, int] = SIZE_HW,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a video of numbered frames, shown at multiples of 1 / rate s, or at these multiples of it."""
    with av.open(str(path), "w", container_options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.gop_size = gop
        container.metadata.update(metadata or {})
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation or is_mirrored:
            stream.set_display_rotation(rotation, hflip=is_mirrored)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, size_hw))
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The file without its end."""
    short = path.with_name(f"cut_{path.name}")
    data = path.read_bytes()
    short.write_bytes(data[: int(len(data) * share)])
    return short
