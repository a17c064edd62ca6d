"""A mask at image size as the low-res logits that a prompt carries."""

from __future__ import annotations

import numpy as np
from PIL import Image

from segany.types import BoolArray, FloatArray, Preprocessing

PROMPT_LOGIT = 10.0
"""Logit of a pixel that is surely inside, and its negative of one outside.

The low-res logits that the models themselves return, and were trained to read, reach this far: on
photographs, the surest 5% inside lie above 7 to 10, the median outside between -4 and -12.
"""


def mask_to_logits(mask: BoolArray, preprocessing: Preprocessing, low_res_size: int) -> FloatArray:
    """Bring a mask into the model's padded frame.

    Args:
        mask: bool [H, W] at the size of the original image.
        preprocessing: how the model resizes its images; the mask goes the same way.
        low_res_size: side of the model's low-res logits.

    Returns:
        float32 [low_res_size, low_res_size], -`PROMPT_LOGIT` to `PROMPT_LOGIT`: the more of a
        low-res pixel the mask covers, the higher. The padding is outside.
    """
    height, width = mask.shape
    side = max(height, width)
    if preprocessing.resize == "longest_side":
        mask = np.pad(mask, ((0, side - height), (0, side - width)))
    picture = Image.fromarray(mask.astype(np.float32))
    covered = np.asarray(picture.resize((low_res_size, low_res_size), Image.Resampling.BILINEAR))
    return np.asarray((2 * covered - 1) * PROMPT_LOGIT, dtype=np.float32)
