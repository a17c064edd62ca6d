"""Frames of videos as tensors, and filling of holes in masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segany.compat.sam2.utils.transforms import small_regions
from segany.core.errors import VideoError
from segany.core.preprocessing import Preprocessing
from segany.imaging.frames import open_frames
from segany.kernels.processor import TensorProcessor

_NO_LIMIT = 2**62
"""The official code takes frames of any size."""

_JPEG_SUFFIXES = (".jpg", ".jpeg")


class VideoFrames:
    """The frames of a video as normalized tensors [3, S, S], read when they are needed and not kept.

    The official code holds all frames in memory, 12 MB each.
    """

    def __init__(self, source: Any, image_size: int, device: torch.device) -> None:
        """Open a video.

        Args:
            source: a folder of JPEG files whose names are numbers, or what `segany.VideoPredictor.open` takes.
            image_size: side of the square input in pixels.
            device: device of the tensors.

        Raises:
            VideoError: the source cannot be opened, has no frames, or does not tell their number.
        """
        frames = open_frames(_numbered_files(source) or source, max_pixels=_NO_LIMIT)
        if frames.count is None:
            raise VideoError(f"{frames.name} does not tell its number of frames, which the predictor needs.")
        self._frames, self._count, self._device = frames, frames.count, device
        self._processor = TensorProcessor(Preprocessing(image_size, "square"))
        self.size_hw = frames.size_hw

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> Tensor:
        if isinstance(index, slice):
            return torch.stack([self[number] for number in range(*index.indices(self._count))])
        number = range(self._count)[index]
        return self._processor.frame_tensor(self._frames.read(number), torch.empty(0, device=self._device))[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(self._count))


def _numbered_files(source: Any) -> list[Path] | None:
    """List the JPEG files of a folder in the order of the numbers that are their names; None for another source."""
    if not isinstance(source, (str, Path)) or not Path(source).is_dir():
        return None
    files = [path for path in Path(source).iterdir() if path.suffix.lower() in _JPEG_SUFFIXES]
    if not files or not all(re.fullmatch(r"-?\d+", path.stem) for path in files):
        return None
    return sorted(files, key=lambda path: int(path.stem))


def load_video_frames(
    video_path: Any,
    image_size: int,
    offload_video_to_cpu: bool = False,
    async_loading_frames: bool = False,
    compute_device: torch.device | str = "cuda",
) -> tuple[VideoFrames, int, int]:
    """Open a video. Returns its frames, height and width. Frames are not kept, so the options change nothing."""
    del async_loading_frames
    device = torch.device("cpu" if offload_video_to_cpu else compute_device)
    frames = VideoFrames(video_path, image_size, device)
    return frames, *frames.size_hw


def fill_holes_in_mask_scores(mask: Tensor, max_area: int) -> Tensor:
    """Fill holes of mask logits [P, 1, h, w] of up to `max_area` pixels with a value just above the threshold."""
    return torch.where(small_regions(mask <= 0, max_area), 0.1, mask)
