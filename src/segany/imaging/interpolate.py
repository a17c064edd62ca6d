"""Resizing tensors: what models do with floating-point maps, and the plain forms of what `resize` does with arrays."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import BoolArray, SizeHW
from segany.core.preprocessing import Preprocessing


def resize_mask(mask: BoolArray, side: int) -> BoolArray:
    """Stretch a mask [H, W] to a square: what covers half of a pixel or more."""
    if mask.shape == (side, side):
        return mask
    covered = resize_smoothly(torch.from_numpy(mask.astype(np.float32))[None, None], (side, side))[0, 0].numpy()
    return np.asarray(covered >= 0.5)


def resize_smoothly(x: Tensor, size_hw: SizeHW) -> Tensor:
    """Resize floating-point [B, C, H, W]: bilinear, averaging what becomes one pixel where it shrinks."""
    return F.interpolate(x, size_hw, mode="bilinear", align_corners=False, antialias=True)


def interpolate_logits(low_res: Tensor, preprocessing: Preprocessing, size_hw: SizeHW) -> Tensor:
    """Low-res logits [P, M, h, w] at the size of the image, [P, M, H, W].

    Bilinear to the model's input, cut to where the image lies in it, bilinear to the image. Where the
    image fills the input, bilinear in one step, as SAM 2 has it. `upscale_logits` is the same for arrays.
    """
    if preprocessing.resize == "square":
        return F.interpolate(low_res.float(), size_hw, mode="bilinear", align_corners=False)
    size = (preprocessing.input_size, preprocessing.input_size)
    logits = F.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
    height, width = preprocessing.resized_hw(size_hw)
    return F.interpolate(logits[..., :height, :width], size_hw, mode="bilinear", align_corners=False)
