"""Calibration of the confidence of masks, and the threshold for a wanted precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segany.core.arrays import BoolArray
from segany.core.errors import ConfigError, DataError
from segany.core.instances import Instances
from segany.evaluate.calibration import (
    ScoredMasks,
    fit_calibration,
    fit_logistic,
    match_objects,
    threshold_for_precision,
)


def scored(count: int, seed: int = 0, weights: tuple[float, float, float] = (1.0, 2.0, 0.0)) -> ScoredMasks:
    """Masks of which some are right, with a probability that is a logistic function of the logits of their scores."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.5, 1.0, (count, 3))
    is_right = rng.random(count) < 1 / (1 + np.exp(-(logits @ weights)))
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return ScoredMasks(scores, np.where(is_right, 0.95, 0.4), count)


def rectangles(*boxes: tuple[int, int, int, int], scores: list[float] | None = None) -> Instances:
    masks = np.zeros((len(boxes), 10, 20), dtype=np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_masks(masks, scores=scores)


def test_masks_and_objects_are_matched_one_to_one() -> None:
    """Two masks of one object: the one with the higher score has it, and the other one has what is left."""
    objects = rectangles((0, 0, 10, 10), (10, 0, 20, 10))
    found = rectangles((0, 0, 10, 10), (0, 0, 10, 8), (0, 0, 12, 10), scores=[0.5, 0.9, 0.7])
    assert match_objects(found, objects).tolist() == pytest.approx([0, 0.8, 20 / 200])
    assert match_objects(found, rectangles()).tolist() == [0, 0, 0]
    assert match_objects(rectangles(), objects).tolist() == []


def test_weights_are_found_again() -> None:
    calibration = fit_calibration(scored(20_000), "abc")
    assert calibration.weights == pytest.approx((1.0, 2.0, 0.0), abs=0.1)
    assert calibration.bias == pytest.approx(0.0, abs=0.1)
    assert (calibration.weights_id, calibration.objects, calibration.masks) == ("abc", 20_000, 20_000)


def test_confidence_is_the_share_of_right_masks() -> None:
    calibration = fit_calibration(scored(4000), "abc")
    other = scored(20_000, seed=1)
    confidence, is_right = calibration.confidence(*other.scores.T), other.ious >= 0.9
    for low in (0.1, 0.3, 0.5, 0.7, 0.9):
        some = (confidence >= low) & (confidence < low + 0.1)
        assert is_right[some].mean() == pytest.approx(confidence[some].mean(), abs=0.04)


def test_threshold_gives_the_precision_on_other_masks() -> None:
    for precision in (0.8, 0.9, 0.95):
        calibration = fit_calibration(scored(4000), "abc", precision=precision)
        assert calibration.threshold is not None
        other = scored(20_000, seed=1)
        kept = (other.ious >= 0.9)[calibration.confidence(*other.scores.T) >= calibration.threshold]
        assert kept.mean() == pytest.approx(precision, abs=0.02)
        assert calibration.measured_precision == pytest.approx(precision, abs=0.002)
        assert calibration.measured_share == pytest.approx(kept.sum() / 20_000, abs=0.03)


def ranked(*is_right: bool) -> tuple[np.ndarray, BoolArray]:
    """Confidences that decrease from 1 in steps of a hundredth."""
    return 1 - np.arange(len(is_right), dtype=np.float32) / 100, np.array(is_right)


def test_threshold_of_a_known_answer() -> None:
    """Of n masks of which k are right the precision is (k + 1) / (n + 2)."""
    confidence, is_right = ranked(*[True] * 18)
    assert threshold_for_precision(confidence, is_right, 0.95) == pytest.approx(0.83)  # all 18: 19 of 20
    assert threshold_for_precision(confidence[:17], is_right[:17], 0.95) is None
    confidence, is_right = ranked(*[True] * 30, False, False, *[True] * 100)
    assert threshold_for_precision(confidence, is_right, 0.95) == pytest.approx(1 - 1.31)  # all: 131 of 134
    assert threshold_for_precision(confidence[:40], is_right[:40], 0.95) == pytest.approx(0.71)  # the first 30
    assert threshold_for_precision(*ranked(), 0.5) is None
    assert threshold_for_precision(*ranked(False, False), 0.5) is None


def test_masks_of_equal_confidence_are_kept_together() -> None:
    confidence = np.repeat(np.array([0.9, 0.8], dtype=np.float32), 20)
    is_right = np.array([True] * 20 + [True] * 10 + [False] * 10)
    assert threshold_for_precision(confidence, is_right, 0.9) == pytest.approx(0.9)
    assert threshold_for_precision(confidence, is_right, 0.7) == pytest.approx(0.8)


def test_threshold_rises_with_the_precision() -> None:
    for seed in range(20):
        masks = scored(100, seed)
        found = [fit_calibration(masks, "abc", precision=one / 100).threshold for one in range(50, 100, 5)]
        thresholds = [2.0 if one is None else one for one in found]
        assert thresholds == sorted(thresholds)
        assert min(thresholds) < 1


def test_scores_that_mislead_have_no_weight() -> None:
    calibration = fit_calibration(scored(5000, weights=(2.0, -1.0, -1.0)), "abc")
    assert calibration.weights[0] > 1
    assert calibration.weights[1:] == (0.0, 0.0)


@pytest.mark.parametrize("iou", [0.95, 0.1])
def test_masks_that_are_all_right_or_all_wrong_have_a_finite_fit(iou: float) -> None:
    masks = replace(scored(40), ious=np.full(40, iou))
    calibration = fit_calibration(masks, "abc")
    confidence = calibration.confidence(*masks.scores.T)
    assert np.isfinite(confidence).all()
    assert (confidence > 0.9).all() == (iou > 0.9)
    assert (calibration.threshold is None) == (iou < 0.9)


def test_separable_masks_have_a_finite_fit() -> None:
    scores = np.repeat(np.array([[0.9, 1.0, 0.9], [0.1, 0.0, 0.1]], dtype=np.float32), 30, axis=0)
    calibration = fit_calibration(ScoredMasks(scores, np.repeat([1.0, 0.0], 30), 30), "abc")
    confidence = calibration.confidence(*scores.T)
    assert confidence[0] > 0.9
    assert confidence[-1] < 0.1
    assert (calibration.measured_precision, calibration.measured_share) == (1, 1)


def test_without_a_mask_nothing_is_sure() -> None:
    nothing = ScoredMasks(np.zeros((0, 3), dtype=np.float32), np.zeros(0), 25)
    calibration = fit_calibration(nothing, "abc")
    assert (calibration.threshold, calibration.measured_precision, calibration.measured_share) == (None, None, 0)
    assert calibration.confidence(*np.full((3, 1), 0.9, dtype=np.float32)).tolist() == [0.5]


def test_too_few_objects_are_counted() -> None:
    with pytest.raises(DataError, match=r"^19 annotated objects are too few .* at least 20\."):
        fit_calibration(replace(scored(100), objects=19), "abc")
    assert fit_calibration(replace(scored(100), objects=20), "abc").objects == 20


@pytest.mark.parametrize("wrong", [{"precision": 0.0}, {"precision": 1.1}, {"min_iou": 0.0}, {"min_iou": float("nan")}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        fit_calibration(scored(100), "abc", **wrong)


def test_features_without_spread_have_no_weight() -> None:
    features = np.stack([np.ones(50), np.linspace(-1, 1, 50)], axis=1)
    weights, bias = fit_logistic(features, features[:, 1] > 0)
    assert weights[0] == 0
    assert weights[1] > 1
    assert bias == pytest.approx(0, abs=1e-6)
