"""Focal and dice loss of masks, and the loss of the predicted IoU (Segment Anything, section A, "Losses")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segany.core.arrays import MASK_THRESHOLD
from segany.core.boxes import mask_box

_PIXELS_AT_ONCE = 16 * 1024 * 1024
"""Number of mask pixels in one computation of the losses. A few float32 copies of them are in memory at a time."""


@dataclass(frozen=True)
class LossWeights:
    """Weights and hyperparameters of the loss; the defaults are SAM's.

    Attributes:
        focal: weight of the focal loss.
        dice: weight of the dice loss.
        iou: weight of the loss of the predicted IoU.
        gamma: focusing parameter of the focal loss, which down-weights well-classified pixels (Lin et al., 2017).
        alpha: weight of foreground in the focal loss; the weight of background is 1 - alpha.
        supervise_all_iou: whether the IoU loss is the mean over all candidates (SAM 2), or that of the candidate with
            the lowest mask loss (SAM, according to SAM 2's code).
        iou_use_l1_loss: whether the IoU loss is the absolute error (SAM 2) or the squared error (SAM).
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    gamma: float = 2.0
    alpha: float = 0.25
    supervise_all_iou: bool = False
    iou_use_l1_loss: bool = False


class ObjectLosses(NamedTuple):
    """The losses of P objects, and the true IoU of their candidates. All are float32.

    Attributes:
        total: [P], weighted sum of the losses, with gradients.
        focal, dice: [P], losses of the candidate with the lowest mask loss.
        iou_loss: [P], loss of the predicted IoU.
        true_iou: [P, M], true IoU of every candidate.
    """

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou_loss: Tensor
    true_iou: Tensor


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """The focal loss of masks (Lin et al., 2017), averaged over the pixels: [..., H, W] to [...].

    `truth` is floating-point in 0..1. A value between is the share of the pixel that the mask covers.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    foreground = torch.sigmoid(logits)
    missing = foreground + truth - 2 * foreground * truth  # 1 - the probability of the true class
    weight = (1 - alpha) + (2 * alpha - 1) * truth
    return (weight * missing**gamma * entropy).flatten(-2).mean(dim=-1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """The dice loss of masks, one minus the dice coefficient (Milletari et al., 2016): [..., H, W] to [...].

    One is added to numerator and denominator, so that the loss of two empty masks is 0.
    """
    foreground = torch.sigmoid(logits).flatten(-2)
    flat = truth.flatten(-2)
    shared = (foreground * flat).sum(dim=-1)
    return 1 - (2 * shared + 1) / (foreground.sum(dim=-1) + flat.sum(dim=-1) + 1)


def true_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU of thresholded logits [..., H, W] with bool masks [..., H, W]: [...]. It is 0 if both are empty."""
    predicted = logits > MASK_THRESHOLD
    shared = (predicted & masks).flatten(-2).sum(dim=-1)
    union = (predicted | masks).flatten(-2).sum(dim=-1)
    return shared / union.clamp(min=1)


def candidate_ious(low_res: Tensor, masks: Tensor) -> Tensor:
    """The true IoU [P, M] of candidates with masks, at the size of the masks.

    On a CPU, only the part of the logits that has foreground is upsampled, with the same result in less time.

    Args:
        low_res: logits [P, M, h, w].
        masks: bool [P, S, S].
    """
    if low_res.device.type != "cpu" or masks.shape[-1] % low_res.shape[-1]:
        return true_iou(stretch_logits(low_res, masks.shape[-1]), masks[:, None])
    rows = [_ious_of_object(logits, mask) for logits, mask in zip(low_res, masks, strict=True)]
    return torch.tensor(rows, dtype=low_res.dtype).reshape(low_res.shape[:2])


def _ious_of_object(low_res: Tensor, mask: Tensor) -> list[float]:
    """The true IoU of logits [M, h, w] with a mask [S, S], on a CPU."""
    above = (low_res > MASK_THRESHOLD).any(dim=0).numpy()
    box = mask_box(above)
    if box is None:
        return [0.0] * len(low_res)
    # A margin of two low-res pixels: one that foreground reaches by interpolation, and one for the border of the crop.
    left, top, right, bottom = max(0, box[0] - 2), max(0, box[1] - 2), box[2] + 2, box[3] + 2
    factor = mask.shape[-1] // low_res.shape[-1]
    part = low_res[None, :, top:bottom, left:right]
    predicted = (F.interpolate(part, scale_factor=factor, mode="bilinear") > MASK_THRESHOLD)[0].numpy()
    pixels = mask.numpy()
    inside = pixels[top * factor : bottom * factor, left * factor : right * factor]
    true_area = np.count_nonzero(pixels)  # many times as fast as a sum in PyTorch
    ious = []
    for candidate in predicted:
        shared = np.count_nonzero(candidate & inside)
        ious.append(shared / max(1, np.count_nonzero(candidate) + true_area - shared))
    return ious


def shrink_masks(masks: Tensor, side: int) -> Tensor:
    """Downsample bool masks [N, S, S] by averaging: float32 [N, side, side] in 0..1, or the masks if `side` is S.

    The result is a target for the mask losses only: with such soft masks, the IoU of a perfect mask is below 1.
    """
    if side == masks.shape[-1]:
        return masks
    together = max(1, _PIXELS_AT_ONCE // masks[0].numel())
    return torch.cat([F.adaptive_avg_pool2d(some.float()[:, None], side)[:, 0] for some in masks.split(together)])


def object_losses(
    low_res: Tensor,
    predicted_iou: Tensor,
    masks: Tensor,
    weights: LossWeights = LossWeights(),
    *,
    truth: Tensor | None = None,
    pixels_at_once: int = _PIXELS_AT_ONCE,
) -> ObjectLosses:
    """The losses of P objects with M candidate masks each.

    Focal and dice loss are those of the candidate with the lowest mask loss only. The target of the predicted IoU is
    the IoU of the thresholded logits at the size of the model's input, as in inference.

    Args:
        low_res: logits [P, M, h, w].
        predicted_iou: [P, M].
        masks: bool [P, S, S], at the size of the model's input.
        weights: weights and hyperparameters of the losses.
        truth: floating-point [P, s, s] from `shrink_masks`, the target of focal and dice loss; by default the masks.
        pixels_at_once: bounds the memory. With more mask pixels, the losses are computed for some objects at a time,
            with activation checkpointing.
    """
    low_res, predicted_iou = low_res.float(), predicted_iou.float()
    truth = masks if truth is None else truth
    together = max(1, pixels_at_once // (masks.shape[-1] ** 2 * low_res.shape[1]))
    with torch.no_grad():
        pieces = zip(low_res.split(together), masks.split(together), truth.split(together), strict=True)
        costs, ious = (torch.cat(parts) for parts in zip(*(_rate(*piece, weights) for piece in pieces), strict=True))
        best = costs.argmin(dim=1)
    each = torch.arange(len(low_res), device=low_res.device)
    together = max(1, pixels_at_once // (truth.shape[-1] ** 2 * low_res.shape[1]))
    pairs = list(zip(low_res[each, best].split(together), truth.split(together), strict=True))
    compared = [_compare_again(*pair, weights) if len(pairs) > 1 else _compare(*pair, weights) for pair in pairs]
    focal, dice = torch.cat(compared, dim=1)
    errors = predicted_iou - ious
    iou_losses = errors.abs() if weights.iou_use_l1_loss else errors.square()
    iou_loss = iou_losses.mean(dim=1) if weights.supervise_all_iou else iou_losses[each, best]
    total = weights.focal * focal + weights.dice * dice + weights.iou * iou_loss
    return ObjectLosses(total, focal.detach(), dice.detach(), iou_loss.detach(), ious)


def _rate(low_res: Tensor, masks: Tensor, truth: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """The mask loss, the weighted sum of focal and dice loss, and the true IoU of all candidates: [P, M] each."""
    logits = stretch_logits(low_res, truth.shape[-1])
    wanted = truth.float()[:, None].expand_as(logits)
    focal = focal_loss(logits, wanted, weights.gamma, weights.alpha)
    cost = weights.focal * focal + weights.dice * dice_loss(logits, wanted)
    return cost, candidate_ious(low_res, masks)


def _compare(chosen: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """Focal and dice loss [2, P] of the chosen candidates, logits [P, h, w]."""
    logits = stretch_logits(chosen[:, None], truth.shape[-1])[:, 0]
    masks = truth.float()
    return torch.stack([focal_loss(logits, masks, weights.gamma, weights.alpha), dice_loss(logits, masks)])


def _compare_again(chosen: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """`_compare` with activation checkpointing."""
    return cast(Tensor, checkpoint(_compare, chosen, truth, weights, use_reentrant=False))


def stretch_logits(low_res: Tensor, side: int) -> Tensor:
    """Resize logits bilinearly, from [P, M, h, h] to [P, M, side, side]."""
    if low_res.shape[-1] == side:
        return low_res
    return F.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)
