"""Small inputs that make_golden.py and the tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SMALL = {"input_size": 256, "width": 64, "depth": 3, "heads": 2, "global_block": 1}
"""A ViT small enough to run in milliseconds; its 16 x 16 map does not divide into windows of 14."""

SMALL_PROMPTS: list[dict[str, Any]] = [
    {"points": [[[60.0, 80.0], [0.0, 0.0]]], "labels": [[1, -1]], "multimask": True},
    {"points": [[[20.0, 30.0], [200.0, 190.0]]], "labels": [[2, 3]], "multimask": False},
    {
        "points": [[[50.0, 40.0], [99.0, 7.0], [20.0, 30.0], [200.0, 190.0]]],
        "labels": [[1, 0, 2, 3]],
        "multimask": False,
    },
]


def small_pixels() -> torch.Tensor:
    size = SMALL["input_size"]
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32))


def small_masks() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, 64, 64), dtype=np.float32)) * 4


SMALL_SAM2: dict[str, Any] = {"width": 32, "depths": (1, 2, 3, 1), "global_blocks": (4,)}
"""A SAM 2 of SMALL's input size, whose maps its windows do not divide."""

SAM2_POINTS: dict[str, Any] = {"points": [[[60.0, 80.0], [99.0, 7.0]]], "labels": [[1, 0]]}

SAM2_STEPS = 3
"""Frames that are tracked after the prompted one."""


def small_frames() -> torch.Tensor:
    size = SMALL["input_size"]
    frames = np.random.default_rng(2).standard_normal((1 + SAM2_STEPS, 1, 3, size, size), dtype=np.float32)
    return torch.from_numpy(frames)


def small_object_mask() -> torch.Tensor:
    """[1, S, S], 0 and 1."""
    mask = torch.zeros(1, SMALL["input_size"], SMALL["input_size"])
    mask[:, 40:130, 60:190] = 1
    return mask
