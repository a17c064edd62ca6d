"""The targets and losses of the object detector."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segany.models.object_detector import DetectorLevel
from segany.train.detection_losses import detection_losses, detection_targets, giou_loss, heatmap_focal_loss

STRIDES = (16, 32, 64)


def empty_levels(side: int = 16, count: int = 1) -> list[DetectorLevel]:
    """Outputs that predict no object, and boxes of one stride."""
    levels = []
    for number, stride in enumerate(STRIDES):
        size = side >> number
        axis = (torch.arange(size) + 0.5) * stride
        x, y = axis.expand(size, size), axis[:, None].expand(size, size)
        boxes = torch.stack([x - stride / 2, y - stride / 2, x + stride / 2, y + stride / 2], dim=-1)
        levels.append(DetectorLevel(torch.full((count, size, size), -10.0), boxes.expand(count, -1, -1, -1)))
    return levels


def centers(heatmap: Tensor) -> list[list[int]]:
    """Row and column of the positions with the value 1."""
    return (heatmap == 1).nonzero().tolist()


def test_objects_of_different_sizes_are_on_different_levels() -> None:
    """Three nested boxes with the same center, of up to 8 strides of 16, of 32, and more."""
    boxes = torch.tensor([[64.0, 64, 192, 192], [96.0, 96, 160, 160], [0.0, 0, 256, 256], [0.0, 30, 255, 226]])
    some = detection_targets(boxes[:3], empty_levels(), STRIDES)
    assert [centers(one.heatmap) for one in some] == [[[8, 8]], [[4, 4]], []]
    # The box of the object with the highest value: of two with the same center, the first.
    assert some[0].boxes_xyxy[8, 8].tolist() == boxes[0].tolist()
    assert some[1].boxes_xyxy[4, 4].tolist() == boxes[2].tolist()
    large = detection_targets(boxes * 4, empty_levels(64), STRIDES)
    assert [len(centers(one.heatmap)) for one in large] == [0, 1, 2]  # 256 px, and 512 px and more


def test_heatmap_falls_off_with_the_sides_of_the_box() -> None:
    (wide, *_) = detection_targets(torch.tensor([[64.0, 112, 192, 144]]), empty_levels(), STRIDES)
    heat = wide.heatmap
    assert centers(heat) == [[8, 8]]
    spread = 8 * 0.54 / 6  # of 8 positions
    assert heat[8, 9] == pytest.approx(math.exp(-0.5 / spread**2))
    assert heat[8, 9] == heat[8, 7] > heat[9, 8]
    assert not detection_targets(torch.zeros(0, 4), empty_levels(), STRIDES)[0].heatmap.any()


def test_objects_at_the_far_edge_have_a_center() -> None:
    """A box of a pixel at the last corner, in an embedding with a part of a position there."""
    boxes = torch.tensor([[255.0, 255, 256, 256], [240.0, 0, 256, 16]])
    (first, *_) = detection_targets(boxes, empty_levels(), STRIDES)
    assert centers(first.heatmap) == [[0, 15], [15, 15]]


def test_focal_loss_of_the_heatmap() -> None:
    logits = torch.tensor([0.0, 0.0, 0.0, 5.0])
    loss = heatmap_focal_loss(logits, torch.tensor([1.0, 0.0, 0.5, 1.0]))
    half = 0.25 * math.log(2)
    assert loss[:3].tolist() == pytest.approx([half, half, half / 16])
    assert loss[3] < 1e-4


def test_giou_of_known_boxes() -> None:
    ones = torch.tensor([[0.0, 0, 2, 2], [0.0, 0, 2, 2], [0.0, 0, 1, 1], [0.0, 0, 4, 4]])
    others = torch.tensor([[0.0, 0, 2, 2], [1.0, 0, 3, 2], [3.0, 0, 4, 1], [1.0, 1, 3, 3]])
    # IoU 1, 1/3, 0 and 1/4, and hulls that are 0, 0, 1/2 and 0 empty
    assert giou_loss(ones, others).tolist() == pytest.approx([0, 2 / 3, 1.5, 0.75])


def test_right_outputs_cost_nothing() -> None:
    boxes = [torch.tensor([[64.0, 64, 80, 80], [0.0, 0, 200, 200]]), torch.zeros(0, 4)]
    levels = empty_levels(count=2)
    wrong = detection_losses(levels, boxes, STRIDES, min_weight=0.1)
    targets = detection_targets(boxes[0], levels, STRIDES)
    for level, wanted in zip(levels, targets, strict=True):
        level.heatmap[0][wanted.heatmap == 1] = 10.0
    boxed = [
        DetectorLevel(level.heatmap, torch.stack([wanted.boxes_xyxy, level.boxes_xyxy[1]]))
        for level, wanted in zip(levels, targets, strict=True)
    ]
    right = detection_losses(boxed, boxes, STRIDES, min_weight=0.1)
    assert float(wrong[0].heatmap) > 5
    assert float(wrong[0].box) > 0.5
    assert float(right[0].heatmap) < 1e-3
    assert float(right[0].box) == pytest.approx(0, abs=1e-6)
    assert (float(right[1].heatmap), float(right[1].box)) == (pytest.approx(0, abs=1e-3), 0)
