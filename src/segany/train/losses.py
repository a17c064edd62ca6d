"""The losses of masks and of the predicted IoU (Segment Anything, section A, "Losses")."""

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
"""Pixels of masks that are compared together: a few copies of them as float32 exist at a time."""


@dataclass(frozen=True)
class LossWeights:
    """How the parts of the loss add up; the defaults are SAM's.

    Attributes:
        focal: weight of the focal loss.
        dice: weight of the dice loss.
        iou: weight of the loss of the predicted IoU.
        gamma: exponent of the focal loss, which reduces the loss of pixels that are right already (Lin et al., 2017).
        alpha: weight of foreground in the focal loss; 1 - alpha is that of background.
        supervise_all_iou: whether the predicted IoU of every candidate is compared with its true IoU (SAM 2), or
            that of the candidate with the lowest mask loss alone (SAM, according to SAM 2's code).
        iou_use_l1_loss: whether the loss of the predicted IoU is its absolute error (SAM 2) or its squared error
            (SAM).
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    gamma: float = 2.0
    alpha: float = 0.25
    supervise_all_iou: bool = False
    iou_use_l1_loss: bool = False


class ObjectLosses(NamedTuple):
    """The losses of P objects, and how good their masks are.

    Attributes:
        total: [P], with gradients.
        focal, dice: [P], of the candidate with the lowest mask loss.
        iou_loss: [P], of the predicted IoU.
        true_iou: [P, M], of every candidate.
    """

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou_loss: Tensor
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


def true_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU of thresholded logits with masks, bool: [..., H, W] both to [...]; 0 where both are empty."""
    predicted = logits > MASK_THRESHOLD
    shared = (predicted & masks).flatten(-2).sum(dim=-1)
    union = (predicted | masks).flatten(-2).sum(dim=-1)
    return shared / union.clamp(min=1)


def candidate_ious(low_res: Tensor, masks: Tensor) -> Tensor:
    """The true IoU of candidates, low-res logits [P, M, h, w], at the size of masks, bool [P, S, S]: [P, M].

    On a CPU only the part of each object that its candidates reach is upsampled, which gives the same numbers.
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
    # Two low-res pixels more to all sides: one that interpolation reaches, and one so that cutting changes nothing.
    left, top, right, bottom = max(0, box[0] - 2), max(0, box[1] - 2), box[2] + 2, box[3] + 2
    factor = mask.shape[-1] // low_res.shape[-1]
    part = low_res[None, :, top:bottom, left:right]
    predicted = (F.interpolate(part, scale_factor=factor, mode="bilinear") > MASK_THRESHOLD)[0].numpy()
    pixels = mask.numpy()
    inside = pixels[top * factor : bottom * factor, left * factor : right * factor]
    true_area = np.count_nonzero(pixels)  # NumPy counts many times as fast as PyTorch adds
    ious = []
    for candidate in predicted:
        shared = np.count_nonzero(candidate & inside)
        ious.append(shared / max(1, np.count_nonzero(candidate) + true_area - shared))
    return ious


def shrink_masks(masks: Tensor, side: int) -> Tensor:
    """Masks bool [N, S, S] as the share of each pixel that they cover, float32 [N, side, side]; bool at their size.

    For the mask losses alone: an IoU with shares is below 1 even for a perfect mask.
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
    """The losses of the candidates for P objects.

    Focal and dice loss count for the candidate alone for which they are lowest. The true IoU, which the predicted
    IoU is compared with, is that of the thresholded logits at the size of the model's input, as in inference.

    Args:
        low_res: logits [P, M, h, w].
        predicted_iou: [P, M].
        masks: bool [P, S, S], at the size of the model's input.
        weights: of the parts.
        truth: float [P, s, s] of `shrink_masks`, with which focal and dice loss compare; the masks by default.
        pixels_at_once: where there are more, some objects are compared after the others, and again in the
            backward pass, so that this bounds the memory.
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
    """The mask loss, focal and dice together, and the true IoU of all candidates: [P, M] each."""
    logits = stretch_logits(low_res, truth.shape[-1])
    wanted = truth.float()[:, None].expand_as(logits)
    focal = focal_loss(logits, wanted, weights.gamma, weights.alpha)
    cost = weights.focal * focal + weights.dice * dice_loss(logits, wanted)
    return cost, candidate_ious(low_res, masks)


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
