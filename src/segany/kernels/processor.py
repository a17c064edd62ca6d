"""The `ImageProcessor` for PyTorch models: makes tensors, and uses the thread pool of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segany.core.arrays import MASK_THRESHOLD, FloatArray, PixelArray, SizeHW
from segany.core.preprocessing import Preprocessing
from segany.imaging.interpolate import interpolate_logits
from segany.imaging.measure import Logits, MaskMeasures, measures_of
from segany.imaging.processor import ImageProcessor
from segany.imaging.resize import Matmul, extent, resize_frame, resize_pixels
from segany.kernels.compute import linear

_LOGITS_AT_ONCE = 2**26
"""Most logits at the size of the image in a batch on an accelerator: 256 MB in float32."""


class _TorchMatmul(Matmul):
    # Autocast would round pixels and logits to bfloat16, which NumPy does not have.

    @torch.inference_mode()
    def multiply(self, left: FloatArray, right: FloatArray) -> FloatArray:
        with torch.autocast("cpu", enabled=False):
            return np.asarray((writable_tensor(left) @ writable_tensor(right)).numpy())

    @torch.inference_mode()
    def multiply_transposed(self, left: FloatArray, right: FloatArray) -> FloatArray:
        with torch.autocast("cpu", enabled=False):
            return np.asarray(linear(writable_tensor(left), writable_tensor(right)).numpy())


class Like(Protocol):
    """A model or tensor that determines the device and dtype of new tensors."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...


class TensorProcessor(ImageProcessor):
    """An `ImageProcessor` for models in PyTorch."""

    matmul = _TorchMatmul()

    def tensor(self, images: Sequence[PixelArray], like: Like) -> Tensor:
        """Preprocess uint8 images [H, W, 3] of any sizes to a tensor [B, 3, S, S]."""
        return self.normalize([resize_pixels(image, self.preprocessing) for image in images], like)

    def frame_tensor(self, frame: PixelArray, like: Like) -> Tensor:
        """Preprocess a video frame, uint8 [H, W, 3], to [1, 3, S, S].

        As in the official code, frames are resized as uint8 by PIL with bicubic interpolation, unlike images.
        """
        return self.normalize([resize_frame(frame, self.preprocessing.input_size)], like)

    def normalize(self, images: Sequence[PixelArray | FloatArray], like: Like) -> Tensor:
        """Normalize and pad resized images [H, W, 3] in units of 0..255 to the encoder's input [B, 3, S, S]."""
        size = self.preprocessing.input_size
        mean, std = self.statistics(like.device)
        batch = torch.zeros(len(images), size, size, 3, device=like.device, dtype=like.dtype)
        for row, image in zip(batch, images, strict=True):
            resized = torch.from_numpy(image).to(like.device)
            row[: resized.shape[0], : resized.shape[1]].copy_(resized).sub_(mean).div_(std)
        return batch.permute(0, 3, 1, 2)  # channels-last memory format, in which the first convolution is fastest

    def statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the channels, float32 [3] each."""
        preprocessing = self.preprocessing
        mean, std = (torch.tensor(x, device=device) for x in (preprocessing.mean_rgb, preprocessing.std_rgb))
        return mean, std

    def upscale(self, low_res: FloatArray, size_hw: SizeHW) -> FloatArray:
        with torch.inference_mode():
            return interpolate_logits(writable_tensor(low_res), self.preprocessing, size_hw).numpy()

    def measure(self, low_res: Logits, size_hw: SizeHW, offset: float) -> MaskMeasures:
        if isinstance(low_res, Tensor):
            return measure_tensors(low_res, self.preprocessing, size_hw, offset)
        return super().measure(low_res, size_hw, offset)


def measure_tensors(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW, offset: float) -> MaskMeasures:
    """Compute `measure_masks` for logits [K, h, w] on an accelerator, in batches at the size of the image."""
    together = max(1, _LOGITS_AT_ONCE // (size_hw[0] * size_hw[1]))
    rows = []
    for piece in low_res.split(together) if len(low_res) else ():
        for logits in interpolate_logits(piece[None], preprocessing, size_hw)[0]:
            mask = logits > MASK_THRESHOLD
            parts = (mask, logits > MASK_THRESHOLD + offset, logits > MASK_THRESHOLD - offset)
            counts = tuple(int(part.count_nonzero()) for part in parts)
            (top, bottom), (left, right) = (extent(mask.any(dim=axis).cpu().numpy()) for axis in (1, 0))
            rows.append((*counts, left, top, right - 1, bottom - 1) if counts[0] else (*counts, 0, 0, 0, 0))
    return measures_of(rows)


def writable_tensor(array: FloatArray) -> Tensor:
    """Convert an array to a tensor; a read-only array is copied, since PyTorch requires writable memory.

    The copy keeps the memory layout: image embeddings are in channels-last memory format.
    """
    return torch.from_numpy(array if array.flags.writeable else array.copy(order="K"))
