"""How an image becomes the input of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segany.core.arrays import FloatArray, SizeHW
from segany.core.errors import ConfigError

MAX_INPUT_SIZE = 16384
"""Pixels; no model has a larger input."""

MAX_MEAN = 1e6
"""Far beyond the means and deviations of pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model.

    Attributes:
        input_size: side in pixels of the square input.
        resize: "longest_side" keeps the aspect ratio and pads bottom and right with zeros (SAM);
            "square" stretches (SAM 2).
        mean_rgb, std_rgb: the normalization, in units of 0..255.
    """

    input_size: int = 1024
    resize: Literal["longest_side", "square"] = "longest_side"
    mean_rgb: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std_rgb: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if not isinstance(self.input_size, int) or not 1 <= self.input_size <= MAX_INPUT_SIZE:
            raise ConfigError(f"input_size must be a number of pixels up to {MAX_INPUT_SIZE}, got {self.input_size!r}.")
        if self.resize not in ("longest_side", "square"):
            raise ConfigError(f"resize must be 'longest_side' or 'square', got {self.resize!r}.")
        for name in ("mean_rgb", "std_rgb"):
            values = getattr(self, name)
            is_rgb = isinstance(values, tuple) and len(values) == 3
            lowest = 0 if name == "std_rgb" else -MAX_MEAN
            if not is_rgb or not all(isinstance(one, (int, float)) and lowest < one < MAX_MEAN for one in values):
                raise ConfigError(f"{name} must be three numbers above {lowest:g}, in units of 0..255, got {values!r}.")

    def resized_hw(self, size_hw: SizeHW) -> SizeHW:
        """Size of the image inside the input, before padding."""
        if self.resize == "square":
            return self.input_size, self.input_size
        scale = self.input_size / max(size_hw)
        # Halves round up, as in the official code. A sliver keeps at least one pixel.
        height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
        return height, width

    def to_input_xy(self, points_xy: FloatArray, size_hw: SizeHW) -> FloatArray:
        """Map points [..., 2] from an image of `size_hw` to pixels of the model's input."""
        resized_h, resized_w = self.resized_hw(size_hw)
        scale_xy = np.array([resized_w / size_hw[1], resized_h / size_hw[0]], dtype=np.float64)
        return (points_xy * scale_xy).astype(np.float32)
