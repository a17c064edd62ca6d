from __future__ import annotations

import numpy as np
import pytest
import torch

from segany.train.prompts import draw_prompts, jitter_boxes, sample_error_points, sample_pixels


def test_equally_spaced_draws_meet_every_pixel_of_a_region_once() -> None:
    region = torch.from_numpy(np.random.default_rng(0).random((11, 17)) < 0.3)
    count = int(region.sum())
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points = sample_pixels(region.expand(count, -1, -1), draws)
    assert points.tolist() == [[x, y] for y, x in region.nonzero().tolist()]


@pytest.mark.parametrize("draw", [0.0, float(np.nextafter(1, 0))])
def test_the_extreme_draws_lie_in_the_region(draw: float) -> None:
    regions = torch.zeros(2, 4, 5, dtype=torch.bool)
    regions[0, 3, 4] = regions[1, 0, 0] = True
    points = sample_pixels(regions, torch.full((2,), draw, dtype=torch.float64))
    assert points.tolist() == [[4, 3], [0, 0]]


def test_a_correction_is_positive_where_missed_and_negative_where_too_much() -> None:
    truth = torch.zeros(4, 6, 6, dtype=torch.bool)
    truth[:, 1:4, 1:4] = True
    predicted = truth.clone()
    predicted[0, 2, 3] = False  # missed
    predicted[1, 5, 0] = True  # too much
    predicted[2] = False  # all of it missed
    points, labels = sample_error_points(predicted, truth, torch.tensor([0.4, 0.4, 0.999, 0.0], dtype=torch.float64))
    assert points.tolist() == [[3, 2], [0, 5], [3, 3], [1, 1]]
    assert labels.tolist() == [1, 0, 1, 1]  # the last has no error: a point of its mask


def test_corrections_are_spread_over_both_kinds_of_error_by_area() -> None:
    truth, predicted = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    truth[0, :2] = True  # 16 pixels missed
    predicted[0, 2:3] = True  # 8 too many
    draws = torch.rand(3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, labels = sample_error_points(predicted.expand(3000, -1, -1), truth.expand(3000, -1, -1), draws)
    assert labels.double().mean().item() == pytest.approx(2 / 3, abs=0.03)


def test_boxes_without_noise_stay() -> None:
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [3.0, 5.0, 4.0, 6.0]])
    torch.testing.assert_close(jitter_boxes(boxes, torch.zeros(2, 4), 64, share=0.1, limit=20), boxes)


def test_noise_on_boxes_is_a_share_of_their_sides_and_limited() -> None:
    noise = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    small = torch.tensor([400.0, 500.0, 500.0, 550.0])  # 100 wide, 50 high
    moved = jitter_boxes(small.expand(5000, -1), noise, 1024, share=0.1, limit=20) - small
    torch.testing.assert_close(moved.std(dim=0), torch.tensor([10.0, 5.0, 10.0, 5.0]), rtol=0.1, atol=0)
    large = torch.tensor([100.0, 100.0, 900.0, 900.0])
    moved = jitter_boxes(large.expand(5000, -1), noise, 1024, share=0.1, limit=20) - large
    assert moved.abs().max() == 20


def test_shaken_boxes_are_within_the_input_and_have_an_area() -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 63, (500, 2), generator=generator)
    boxes = torch.cat([corners, corners + 1], dim=1).float()
    shaken = jitter_boxes(boxes, 30 * torch.randn(500, 4, generator=generator), 64, share=0.5, limit=20)
    assert (shaken >= 0).all()
    assert (shaken <= 64).all()
    assert (shaken[:, 2:] - shaken[:, :2] > 1 - 1e-4).all()


def test_a_plan_follows_from_its_seed() -> None:
    def plan(seed: int) -> list[object]:
        plan = draw_prompts(seed, 5, iterations=11, repeats=2, box_chance=0.5)
        return [plan.starts_with_box.tolist(), plan.box_noise.tolist(), plan.draws.tolist(), plan.repeats]

    assert plan(3) == plan(3)
    assert plan(3) != plan(4)


def test_box_noise_is_normal_or_uniform() -> None:
    normal, uniform = (
        draw_prompts(0, 2000, iterations=1, repeats=0, box_chance=1, uniform_boxes=kind).box_noise
        for kind in (False, True)
    )
    assert normal.std() == pytest.approx(1, abs=0.03)
    assert np.abs(uniform).max() <= 1  # SAM 2: at most a tenth of the side, each way
    assert uniform.std() == pytest.approx(1 / 3**0.5, abs=0.02)


def test_two_iterations_add_no_point_the_last_and_any_other_but_the_first() -> None:
    plans = [draw_prompts(seed, 1, iterations=6, repeats=2, box_chance=0.5) for seed in range(200)]
    assert {tuple(sorted(plan.repeats)) for plan in plans} == {(index, 5) for index in range(1, 5)}
    assert 70 < sum(bool(plan.starts_with_box[0]) for plan in plans) < 130


@pytest.mark.parametrize(("repeats", "expected"), [(0, set()), (1, {2}), (2, {1, 2})])
def test_the_number_of_repeats_is_a_choice(repeats: int, expected: set[int]) -> None:
    assert draw_prompts(0, 1, iterations=3, repeats=repeats, box_chance=0).repeats == expected
