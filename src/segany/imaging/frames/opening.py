"""Opens frame sources of any type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from segany.core.arrays import PixelArray
from segany.core.errors import VideoError
from segany.core.files import path_errors
from segany.imaging.frames.camera import open_camera
from segany.imaging.frames.images import ImageFrames, images_in
from segany.imaging.frames.source import FrameSource
from segany.imaging.frames.stream import StreamFrames
from segany.imaging.frames.video_file import VideoFileFrames
from segany.imaging.image import DEFAULT_MAX_PIXELS, ImageSource
from segany.imaging.pixels import AS_STORED, PixelOptions

VideoInput: TypeAlias = "FrameSource | str | Path | int | Sequence[ImageSource] | Iterable[ImageSource] | PixelArray"


def open_frames(
    source: VideoInput, *, max_pixels: int = DEFAULT_MAX_PIXELS, pixel_options: PixelOptions = AS_STORED
) -> FrameSource:
    """Open a video.

    Args:
        source: the path of a video file; the path of a folder of images, which are sorted in natural order; a list of
            images of any type that `segany.imaging.image.read_image` reads; an array [T, H, W, 3]; an iterator of
            images, which is read forward only; or the number of a camera, from 0. A `FrameSource` is returned
            unchanged.
        max_pixels: refuse frames of more pixels.
        pixel_options: value range, bands and page of images that do not determine them; videos and cameras do.

    Raises:
        VideoError: the source is missing, not a video, has no frames, or has an unsupported type.
        ImageError: the first image cannot be read.
        MissingExtraError: it is a video file or a camera, and PyAV is not installed.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int):
        if isinstance(source, bool):
            raise _not_a_video(source)
        return open_camera(source, max_pixels)
    if isinstance(source, (str, Path)):
        return _open_path(Path(source), max_pixels, pixel_options)
    return _open_images(source, max_pixels, pixel_options)


def _open_images(
    source: Sequence[ImageSource] | Iterable[ImageSource], max_pixels: int, options: PixelOptions
) -> FrameSource:
    if isinstance(source, np.ndarray):
        if source.ndim != 4:
            raise VideoError(
                f"An array of frames must have shape [T, H, W, 3], got {list(source.shape)}. "
                "A single image goes in as a list of one."
            )
        return ImageFrames(list(source), "The array", max_pixels, options)
    one_image = isinstance(source, (bytes, bytearray, memoryview, Image.Image)) or hasattr(source, "read")
    if isinstance(source, Iterable) and not one_image:
        if isinstance(source, Sequence):
            return ImageFrames(source, "The list of frames", max_pixels, options)
        return StreamFrames(iter(source), "The stream", max_pixels, pixel_options=options)
    raise _not_a_video(source)


def _not_a_video(source: object) -> VideoError:
    return VideoError(
        "A video must be a path, a folder, a list or an iterator of images, or the number of a camera, "
        f"got {type(source).__name__}."
    )


def _open_path(path: Path, max_pixels: int, options: PixelOptions) -> FrameSource:
    with path_errors(path, VideoError):
        if path.is_dir():
            return ImageFrames(images_in(path), str(path), max_pixels, options)
        if not path.exists():
            if "://" in str(path) or str(path).startswith(("http:/", "https:/", "rtsp:/")):
                raise VideoError(f"{path} is an address, and those are not fetched. Download the video first.")
            raise VideoError(f"There is no video {path}. Check the path.")
        if not path.is_file():
            raise VideoError(f"{path} is not a file but a pipe, socket or device. A camera goes in by its number.")
        with contextlib.suppress(PermissionError), path.open("rb") as file:
            if not file.read(1):
                raise VideoError(f"{path} is empty: it has no bytes.")
    return VideoFileFrames(path, max_pixels)
