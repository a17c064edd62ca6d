"""What masks and predicted IoU cost (Segment Anything, section A, "Losses")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segany.core.arrays import MASK_THRESHOLD

_PIXELS_AT_ONCE = 16 * 1024 * 1024
"""Pixels of masks that are compared together: a few copies of them as float32 exist at a time."""


@dataclass(frozen=True)
class LossWeights:
    """How the parts of the loss add up; the defaults are the paper's.

    Attributes:
        focal: weight of the focal loss.
        dice: weight of the dice loss.
        iou: weight of the squared error of the predicted IoU.
        gamma: how fast the focal loss forgets pixels that are right already (Lin et al., 2017).
        alpha: weight of foreground in the focal loss; 1 - alpha is that of background.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    gamma: float = 2.0
    alpha: float = 0.25


class ObjectLosses(NamedTuple):
    """What P objects cost, and how good their masks are.

    Attributes:
        total: [P], with gradients.
        focal, dice: [P], of the candidate that costs least.
        iou_error: [P], squared error of the predicted IoU, the mean over the candidates.
        true_iou: [P, M], of every candidate.
    """

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou_error: Tensor
    true_iou: Tensor


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """The focal loss of masks (Lin et al., 2017), the mean over the pixels: [..., H, W] to [...].

    `truth` is in 0..1, between them where a pixel is partly covered.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    foreground = torch.sigmoid(logits)
    missing = foreground + truth - 2 * foreground * truth  # 1 - the probability of what is true
    weight = (1 - alpha) + (2 * alpha - 1) * truth
    return (weight * missing**gamma * entropy).flatten(-2).mean(dim=-1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the dice coefficient of masks (Milletari et al., 2016): [..., H, W] to [...].

    A pixel is added above and below the line, so that two empty masks are alike.
    """
    foreground = torch.sigmoid(logits).flatten(-2)
    flat = truth.flatten(-2)
    shared = (foreground * flat).sum(dim=-1)
    return 1 - (2 * shared + 1) / (foreground.sum(dim=-1) + flat.sum(dim=-1) + 1)


def true_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of thresholded logits with the truth in 0..1: [..., H, W] to [...]; 0 where both are empty."""
    predicted = (logits > MASK_THRESHOLD).to(truth.dtype).flatten(-2)
    flat = truth.flatten(-2)
    shared = (predicted * flat).sum(dim=-1)
    union = predicted.sum(dim=-1) + flat.sum(dim=-1) - shared
    return shared / union.clamp(min=1e-6)


def shrink_masks(masks: Tensor, side: int) -> Tensor:
    """Masks bool [N, S, S] as the share of each pixel that they cover, float32 [N, side, side]; bool at their size."""
    if side == masks.shape[-1]:
        return masks
    together = max(1, _PIXELS_AT_ONCE // masks[0].numel())
    return torch.cat([F.adaptive_avg_pool2d(some.float()[:, None], side)[:, 0] for some in masks.split(together)])


def object_losses(
    low_res: Tensor,
    predicted_iou: Tensor,
    truth: Tensor,
    weights: LossWeights = LossWeights(),
    pixels_at_once: int = _PIXELS_AT_ONCE,
) -> ObjectLosses:
    """What the candidates for P objects cost. Masks are compared at the size of the truth.

    Only the candidate with the lowest focal and dice loss counts for them, while every candidate's IoU is
    predicted: it is what they are ranked by.

    Args:
        low_res: logits [P, M, h, w].
        predicted_iou: [P, M].
        truth: bool or float [P, s, s], as of `shrink_masks`.
        weights: of the parts.
        pixels_at_once: where there are more, some objects are compared after the others, and again in the
            backward pass, so that this bounds the memory.
    """
    low_res, predicted_iou = low_res.float(), predicted_iou.float()
    together = max(1, pixels_at_once // (truth.shape[-1] ** 2 * low_res.shape[1]))
    with torch.no_grad():
        pairs = zip(low_res.split(together), truth.split(together), strict=True)
        costs, ious = (torch.cat(parts) for parts in zip(*(_rate(*pair, weights) for pair in pairs), strict=True))
        best = costs.argmin(dim=1)
    chosen = low_res[torch.arange(len(low_res), device=low_res.device), best]
    pieces = list(zip(chosen.split(together), truth.split(together), strict=True))
    compared = [_compare_again(*piece, weights) if len(pieces) > 1 else _compare(*piece, weights) for piece in pieces]
    focal, dice = torch.cat(compared, dim=1)
    iou_error = (predicted_iou - ious).square().mean(dim=1)
    total = weights.focal * focal + weights.dice * dice + weights.iou * iou_error
    return ObjectLosses(total, focal.detach(), dice.detach(), iou_error.detach(), ious)


def _rate(low_res: Tensor, truth: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """Focal and dice loss together, and true IoU, of all candidates: [P, M] each."""
    logits = stretch_logits(low_res, truth.shape[-1])
    masks = truth.float()[:, None].expand_as(logits)
    focal = focal_loss(logits, masks, weights.gamma, weights.alpha)
    return weights.focal * focal + weights.dice * dice_loss(logits, masks), true_iou(logits, masks)


def _compare(chosen: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """Focal and dice loss of a candidate an object [P, h, w]: [2, P]."""
    logits = stretch_logits(chosen[:, None], truth.shape[-1])[:, 0]
    masks = truth.float()
    return torch.stack([focal_loss(logits, masks, weights.gamma, weights.alpha), dice_loss(logits, masks)])


def _compare_again(chosen: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """The same, of which nothing is kept for the backward pass."""
    return cast(Tensor, checkpoint(_compare, chosen, truth, weights, use_reentrant=False))


def stretch_logits(low_res: Tensor, side: int) -> Tensor:
    """Bilinear from [P, M, h, h] to [P, M, side, side]."""
    if low_res.shape[-1] == side:
        return low_res
    return F.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)
