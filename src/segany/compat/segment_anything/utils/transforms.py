"""Resizing of images and scaling of coordinates to the input of SAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from segany.core.preprocessing import Preprocessing
from segany.imaging.interpolate import resize_smoothly

Array = npt.NDArray[Any]


class ResizeLongestSide:
    """Resizes images so that the longer side has `target_length` pixels, and scales coordinates alike."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: Array) -> Array:
        """Resize an image, uint8 [H, W, C]."""
        height, width = self._resized(image.shape)
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))

    def apply_coords(self, coords: Array, original_size: tuple[int, ...]) -> Array:
        """Scale points [..., 2] on an image of size `original_size` (H, W), float64."""
        return np.asarray(coords, dtype=np.float64) * self._scale_xy(original_size)

    def apply_boxes(self, boxes: Array, original_size: tuple[int, ...]) -> Array:
        """Scale boxes [P, 4] or [4]: [P, 4]."""
        return self.apply_coords(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """Resize images, float [B, C, H, W]. Pixels differ slightly from those of `apply_image`."""
        return resize_smoothly(image, self._resized(image.shape[2:]))

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """Scale points [..., 2], float32."""
        scale = torch.tensor(self._scale_xy(original_size), dtype=torch.float, device=coords.device)
        return coords.to(torch.float) * scale

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """Scale boxes [P, 4] or [4]: [P, 4]."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """Return height and width after resizing."""
        return Preprocessing(long_side_length).resized_hw((oldh, oldw))

    def _resized(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return self.get_preprocess_shape(shape[0], shape[1], self.target_length)

    def _scale_xy(self, original_size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        height, width = self._resized(original_size)
        return np.array([width / original_size[1], height / original_size[0]])
