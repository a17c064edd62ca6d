from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from segany.train.losses import (
    LossWeights,
    candidate_ious,
    dice_loss,
    focal_loss,
    object_losses,
    shrink_masks,
    true_iou,
)

LN2 = math.log(2)


def test_focal_loss_of_numbers_worked_out_by_hand() -> None:
    # At a logit of 0 the probability is 1/2: entropy ln 2, forgotten by 1/4, weighted by 1/4 or 3/4.
    logits, truth = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert focal_loss(logits, truth).item() == pytest.approx((0.25 + 3 * 0.75) * 0.25 * LN2 / 4)
    # At ln 3 the probability is 3/4.
    logits = torch.full((1, 1, 1), math.log(3))
    assert focal_loss(logits, torch.ones(1, 1, 1)).item() == pytest.approx(0.25 * (1 / 4) ** 2 * math.log(4 / 3))
    assert focal_loss(logits, torch.zeros(1, 1, 1)).item() == pytest.approx(0.75 * (3 / 4) ** 2 * math.log(4))


def test_focal_loss_without_focus_is_half_the_entropy() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 5, 4), torch.rand(3, 5, 4)
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2)) / 2
    torch.testing.assert_close(focal_loss(logits, truth, gamma=0, alpha=0.5), expected)


def test_dice_loss_of_numbers_worked_out_by_hand() -> None:
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    sure = 100 * (2 * truth - 1)
    assert dice_loss(sure, truth).item() == pytest.approx(0)
    assert dice_loss(-sure, truth).item() == pytest.approx(1 - 1 / 5)  # nothing shared of 2 + 2
    assert dice_loss(torch.zeros(1, 2, 2), truth).item() == pytest.approx(1 - 3 / 5)  # 1 shared of 2 + 2
    assert dice_loss(torch.full((1, 2, 2), -100.0), torch.zeros(1, 2, 2)).item() == pytest.approx(0)


def test_true_iou_of_masks() -> None:
    logits = torch.tensor([[[1.0, 1.0, -1.0, 0.0]]])  # a logit of 0 is background
    assert true_iou(logits, torch.tensor([[[False, True, True, False]]])).item() == pytest.approx(1 / 3)
    assert true_iou(logits, torch.tensor([[[False, True, False, False]]])).item() == pytest.approx(1 / 2)
    assert true_iou(-logits.abs(), torch.zeros(1, 1, 4, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize(("radius", "expected"), [(6, 0.87), (12, 0.97), (20, 0.98), (40, 0.99)])
def test_perfect_small_masks_have_a_true_iou_near_one(radius: int, expected: float) -> None:
    """Also where the mask losses compare at a quarter of the side: coverage of low-res pixels taught 0.71 to 0.96."""
    side = 1024
    distance = torch.hypot(*torch.meshgrid(torch.arange(side) - 512.0, torch.arange(side) - 514.0, indexing="ij"))
    masks = (distance < radius)[None]
    truth = shrink_masks(masks, 256)
    perfect = 40 * (truth[:, None] - 0.5)
    losses = object_losses(perfect, torch.ones(1, 1), masks, truth=truth)
    upsampled = F.interpolate(perfect, (side, side), mode="bilinear", align_corners=False)[0, 0] > 0
    at_full_size = (upsampled & masks[0]).sum() / (upsampled | masks[0]).sum()
    assert losses.true_iou.item() == pytest.approx(at_full_size.item())
    assert losses.true_iou.item() >= expected
    assert losses.iou_loss.item() == pytest.approx((1 - at_full_size.item()) ** 2)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_gradients_are_those_of_finite_differences(loss: object) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    truth = (torch.rand(2, 3, 4, dtype=torch.float64) > 0.5).double()
    assert torch.autograd.gradcheck(loss, (logits, truth))


def test_losses_of_extreme_logits_are_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4, 1e4, -1e4]]], requires_grad=True)
    truth = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    (focal_loss(logits, truth) + dice_loss(logits, truth)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_masks_are_shrunk_by_area() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, :2] = masks[0, 0, 3] = True
    assert shrink_masks(masks, 2).tolist() == [[[1, 0.25], [0, 0]]]
    assert shrink_masks(masks, 4) is masks


def candidates() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    truth = (torch.rand(5, 8, 8) > 0.6).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    low_res = torch.randn(5, 3, 8, 8)
    for row, best in enumerate((2, 0, 1, 1, 0)):
        low_res[row, best] += 3 * (2 * truth[row, ::2, ::2].float() - 1)
    return low_res.requires_grad_(), torch.rand(5, 3, requires_grad=True), truth


def test_upsampling_a_part_gives_the_same_iou() -> None:
    torch.manual_seed(0)
    low_res = F.avg_pool2d(torch.randn(6, 3, 20, 20), 5, stride=1)  # blobs, at the borders too
    low_res[0] = -1.0
    low_res[1, 0] = 1.0
    masks = F.interpolate(low_res[:, 1:2] + 0.1, (64, 64))[:, 0] > 0
    whole = true_iou(F.interpolate(low_res, (64, 64), mode="bilinear"), masks[:, None])
    torch.testing.assert_close(candidate_ious(low_res, masks), whole)


ALL = LossWeights(supervise_all_iou=True)


@pytest.mark.parametrize("weights", [LossWeights(), ALL, LossWeights(iou_use_l1_loss=True)])
def test_only_the_best_of_three_masks_learns(weights: LossWeights) -> None:
    low_res, iou, masks = candidates()
    losses = object_losses(low_res, iou, masks, weights)
    losses.total.sum().backward()
    assert low_res.grad is not None
    assert iou.grad is not None
    learns = low_res.grad.flatten(2).abs().amax(dim=2) > 0
    best = [[0, 2], [1, 0], [2, 1], [3, 1], [4, 0]]
    assert learns.nonzero().tolist() == best
    error = iou.detach() - losses.true_iou
    if weights.supervise_all_iou:  # as SAM 2 is trained
        torch.testing.assert_close(iou.grad, 2 * error / 3)
    else:
        expected = error.sign() if weights.iou_use_l1_loss else 2 * error
        torch.testing.assert_close(iou.grad, torch.where(learns, expected, 0.0))


def test_the_total_is_20_to_1_to_1() -> None:
    low_res, iou, masks = candidates()
    losses = object_losses(low_res[:, :1], iou[:, :1], masks)
    logits = F.interpolate(low_res[:, :1], (16, 16), mode="bilinear")[:, 0]
    focal, dice = focal_loss(logits, masks.float()), dice_loss(logits, masks.float())
    error = (iou[:, 0] - true_iou(logits, masks)) ** 2
    torch.testing.assert_close(losses.total, 20 * focal + dice + error)
    other = object_losses(low_res[:, :1], iou[:, :1], masks, LossWeights(focal=0, dice=2, iou=0))
    torch.testing.assert_close(other.total, 2 * dice)


def test_objects_compared_one_after_the_other_cost_the_same() -> None:
    results = []
    for pixels in (10**9, 1, 3 * 16 * 16 * 2):  # all, one by one, by twos
        low_res, iou, masks = candidates()
        losses = object_losses(low_res, iou, masks, truth=shrink_masks(masks, 8), pixels_at_once=pixels)
        losses.total.sum().backward()
        results.append((*losses, low_res.grad, iou.grad))
    for one in results[1:]:
        for got, expected in zip(one, results[0], strict=True):
            torch.testing.assert_close(got, expected)
