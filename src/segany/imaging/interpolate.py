"""Interpolation of tensors: masks, and logits from low resolution to the image; `resize` has the forms for arrays."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import BoolArray, SizeHW
from segany.core.preprocessing import Preprocessing


def resize_mask(mask: BoolArray, side: int) -> BoolArray:
    """Resize a mask, bool [H, W], to a square: pixels that are at least half covered are set."""
    if mask.shape == (side, side):
        return mask
    covered = resize_smoothly(torch.from_numpy(mask.astype(np.float32))[None, None], (side, side))[0, 0].numpy()
    return np.asarray(covered >= 0.5)


def resize_smoothly(x: Tensor, size_hw: SizeHW) -> Tensor:
    """Resize floating-point [B, C, H, W] with antialiased bilinear interpolation."""
    # In float32, since PyTorch's kernel for the CPU has no half precision.
    resized = F.interpolate(x.float(), size_hw, mode="bilinear", align_corners=False, antialias=True)
    return resized.to(x.dtype)


def interpolate_logits(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW) -> Tensor:
    """Upscale low-res logits [P, M, h, w] to the size of the image: [P, M, H, W].

    SAM: interpolate bilinearly to the input size, crop the padding, interpolate to the size of the image. SAM 2:
    interpolate to the size of the image in one step. `upscale_logits` computes the same for arrays.
    """
    if preprocessing.resize == "square":
        return F.interpolate(low_res.float(), size_hw, mode="bilinear", align_corners=False)
    size = (preprocessing.input_size, preprocessing.input_size)
    logits = F.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    height, width = preprocessing.resized_hw(size_hw)
    return F.interpolate(logits[..., :height, :width], size_hw, mode="bilinear", align_corners=False)
