"""Simulated prompts for training (Segment Anything, section A, "Training algorithm").

The functions are deterministic: all random numbers are drawn in advance by `draw_prompts`, so that results do not
depend on the device. Points are pixels of the model's input as integers, x then y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_PURPOSE = 0x50
"""Stream of random numbers for prompts, to keep them independent of other uses of the seed."""


@dataclass(frozen=True, eq=False)
class PromptDraws:
    """The random numbers of the prompts of an item with N objects.

    Attributes:
        starts_with_box: bool [N], whether the first prompt is a box instead of a point.
        box_noise: float64 [N, 4], standard normal, or uniform in -1..1.
        draws: float64 [iterations, N], uniform in 0..1, which choose a pixel of a region as the point.
        repeats: the iterations that add no point.
    """

    starts_with_box: npt.NDArray[np.bool_]
    box_noise: npt.NDArray[np.float64]
    draws: npt.NDArray[np.float64]
    repeats: frozenset[int]


def draw_prompts(
    seed: int, count: int, *, iterations: int, repeats: int, box_chance: float, uniform_boxes: bool = False
) -> PromptDraws:
    """Draw the random numbers for the prompts of `count` objects.

    `repeats` (at most 2) of the iterations after the first add no point: the last one, and a random other one.
    """
    rng = np.random.default_rng([_PURPOSE, seed])
    starts_with_box = rng.random(count) < box_chance
    box_noise = rng.uniform(-1.0, 1.0, (count, 4)) if uniform_boxes else rng.standard_normal((count, 4))
    draws = rng.random((iterations, count))
    without = {iterations - 1} if repeats else set()
    if repeats > 1:
        without.add(int(rng.integers(1, iterations - 1)))
    return PromptDraws(starts_with_box, box_noise, draws, frozenset(without))


def sample_pixels(regions: Tensor, draws: Tensor) -> Tensor:
    """Choose a pixel of each region, uniformly.

    Args:
        regions: bool [N, H, W], none of which is empty.
        draws: floating-point [N], uniform in 0..1.

    Returns:
        int64 [N, 2], xy.
    """
    height, width = regions.shape[1:]
    by_row = regions.sum(dim=2).cumsum(dim=1)  # [N, H], pixels up to the end of each row
    total = by_row[:, -1]
    rank = (draws * total).long().clamp(max=total - 1)
    row = torch.searchsorted(by_row, rank[:, None], right=True)[:, 0].clamp(max=height - 1)
    each = torch.arange(len(regions), device=regions.device)
    in_row = regions[each, row].long().cumsum(dim=1)  # [N, W]
    rank_in_row = rank - (by_row[each, row] - in_row[:, -1])
    column = torch.searchsorted(in_row, rank_in_row[:, None], right=True)[:, 0].clamp(max=width - 1)
    return torch.stack([column, row], dim=1)


def sample_error_points(predicted: Tensor, truth: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the next point of each object, uniformly from its error region.

    The label is foreground in a false negative and background in a false positive. Without an error, the point is
    chosen from the true mask.

    Args:
        predicted, truth: bool [N, H, W]; no true mask is empty.
        draws: floating-point [N], uniform in 0..1.

    Returns:
        int64 [N, 2], xy, and labels int64 [N], 1 or 0.
    """
    errors = predicted ^ truth
    wrong = errors.flatten(1).any(dim=1)
    points = sample_pixels(torch.where(wrong[:, None, None], errors, truth), draws)
    each = torch.arange(len(truth), device=truth.device)
    return points, truth[each, points[:, 1], points[:, 0]].long()


def jitter_boxes(boxes_xyxy: Tensor, noise: Tensor, size: int, *, share: float, limit: float) -> Tensor:
    """Add noise to the corners of boxes, to simulate boxes drawn by people.

    Args:
        boxes_xyxy: [N, 4], boxes in pixels of an input of `size` x `size`.
        noise: [N, 4], standard normal or uniform.
        size: side of the input.
        share: scale of the noise, as a share of the side of the box.
        limit: largest displacement of a corner, in pixels.

    Returns:
        [N, 4], boxes inside the input, at least one pixel wide and high.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).repeat(1, 2)
    moved = boxes_xyxy + (noise * share * sides).clamp(-limit, limit)
    corners = moved.reshape(-1, 2, 2).sort(dim=1).values  # noise may swap the corners of a thin box
    first = corners[:, 0].clamp(0, size - 1)
    second = torch.maximum(corners[:, 1].clamp(max=size), first + 1)
    return torch.cat([first, second], dim=1)
