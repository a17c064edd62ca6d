"""Targets and losses of the object detector: CenterNet's focal loss of the heatmap, and GIoU loss of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segany.core.arrays import SizeHW
from segany.models.object_detector import DetectorLevel, positions_xy

STRIDES_ACROSS = 8
"""An object is detected on the first level on which its longer side is at most this number of strides."""

SPREAD = 0.54 / 6
"""Standard deviation of an object's Gaussian in the heatmap, as a share of the sides of its box (TTFNet)."""


@dataclass(frozen=True)
class DetectionTargets:
    """The targets of one image on one level.

    Attributes:
        heatmap: [h, w], 1 at the centers of objects and a Gaussian around them.
        boxes_xyxy: [h, w, 4], the box of the object with the highest value there, in pixels of the model's input.
    """

    heatmap: Tensor
    boxes_xyxy: Tensor


class DetectionLosses(NamedTuple):
    """The losses of one image, scalars with gradients."""

    heatmap: Tensor
    box: Tensor


def detection_losses(
    levels: Sequence[DetectorLevel], boxes_xyxy: Sequence[Tensor], strides: Sequence[int], min_weight: float
) -> list[DetectionLosses]:
    """The losses of the outputs for B images.

    Args:
        levels: the outputs of the detector.
        boxes_xyxy: the boxes of the objects of each image, [N, 4] each, in pixels of the model's input.
        strides: strides of the levels.
        min_weight: positions with at least this value of the heatmap's target predict the box.
    """
    losses = []
    for index, boxes in enumerate(boxes_xyxy):
        heat, true_heat, found, true_boxes = [], [], [], []
        for level, wanted in zip(levels, detection_targets(boxes, levels, strides), strict=True):
            heat.append(level.heatmap[index].flatten())
            true_heat.append(wanted.heatmap.flatten())
            found.append(level.boxes_xyxy[index].flatten(0, 1))
            true_boxes.append(wanted.boxes_xyxy.flatten(0, 1))
        target = torch.cat(true_heat)
        focal = heatmap_focal_loss(torch.cat(heat), target).sum() / max(1, len(boxes))
        near = target >= min_weight
        box = giou_loss(torch.cat(found)[near], torch.cat(true_boxes)[near])
        weights = target[near]
        losses.append(DetectionLosses(focal, (weights * box).sum() / weights.sum().clamp(min=1.0)))
    return losses


def detection_targets(
    boxes_xyxy: Tensor, levels: Sequence[DetectorLevel], strides: Sequence[int]
) -> list[DetectionTargets]:
    """The targets of one image with the objects `boxes_xyxy` [N, 4], for each level."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    limits = torch.tensor([stride * STRIDES_ACROSS for stride in strides[:-1]], dtype=sides.dtype, device=sides.device)
    level_of = torch.bucketize(sides.amax(dim=1), limits)
    return [
        _level_targets(boxes_xyxy[level_of == number], (level.heatmap.shape[1], level.heatmap.shape[2]), stride)
        for number, (level, stride) in enumerate(zip(levels, strides, strict=True))
    ]


def _level_targets(boxes_xyxy: Tensor, size_hw: SizeHW, stride: int) -> DetectionTargets:
    if not len(boxes_xyxy):
        return DetectionTargets(boxes_xyxy.new_zeros(size_hw), boxes_xyxy.new_zeros(*size_hw, 4))
    scaled = boxes_xyxy / stride
    # The center is that of a position, so that the heatmap of every object reaches 1 (CenterNet).
    centers = ((scaled[:, :2] + scaled[:, 2:]) / 2).floor() + 0.5
    last_xy = scaled.new_tensor([size_hw[1] - 0.5, size_hw[0] - 0.5])
    centers = torch.minimum(centers, last_xy)
    spreads = (scaled[:, 2:] - scaled[:, :2]) * SPREAD
    offsets = (positions_xy(size_hw, scaled) - centers[:, None, None]) / spreads[:, None, None].clamp(min=1e-3)
    values = (-offsets.square().sum(dim=-1) / 2).exp()  # [N, h, w]
    heatmap, owner = values.max(dim=0)
    return DetectionTargets(heatmap, boxes_xyxy[owner])


def heatmap_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss of each position, with alpha 2 and beta 4 (Zhou et al., 2019, eq. 1).

    Args:
        logits: floating-point, of any shape.
        target: of that shape: 1 at the center of an object, and between 0 and 1 around it.
    """
    heat = logits.sigmoid()
    at_center = -F.logsigmoid(logits) * (1 - heat).square()
    elsewhere = -F.logsigmoid(-logits) * heat.square() * (1 - target).pow(4)
    return torch.where(target == 1, at_center, elsewhere)


def giou_loss(boxes_xyxy: Tensor, targets_xyxy: Tensor) -> Tensor:
    """One minus the generalized IoU (Rezatofighi et al., 2019) of pairs of boxes [N, 4]: [N], in 0..2.

    The boxes have an area.
    """
    least, most = torch.minimum(boxes_xyxy, targets_xyxy), torch.maximum(boxes_xyxy, targets_xyxy)
    shared = (least[:, 2:] - most[:, :2]).clamp(min=0).prod(dim=1)
    hull = (most[:, 2:] - least[:, :2]).prod(dim=1)
    union = sum((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes_xyxy, targets_xyxy)) - shared
    return 1 - shared / union + (hull - union) / hull
