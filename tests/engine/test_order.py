from __future__ import annotations

import numpy as np
import pytest
from tests.evaluate.painting import PaintingModel
from tests.models_for_tests import loaded, small_sam

from segany import ConfigError, ImagePredictor
from segany.core.embedding import Embedding
from segany.core.preprocessing import Preprocessing
from segany.engine.order import (
    diversity_order,
    image_features,
    random_order,
    uncertainty,
    uncertainty_order,
)


def test_a_random_order_depends_on_the_seed_alone():
    ids = [f"item {number}" for number in range(20)]
    assert random_order(ids, 1) == random_order(ids[::-1], 1)
    assert sorted(random_order(ids, 1)) == sorted(ids)
    assert random_order(ids, 1) != random_order(ids, 2)


def test_the_most_uncertain_images_come_first():
    assert uncertainty_order({"a": 0.1, "c": 0.5, "b": 0.5, "d": 0.9}) == ["d", "b", "c", "a"]


def test_each_next_image_is_the_farthest_from_those_before():
    places = {"a": 0, "b": 1, "c": 2, "d": 10, "e": 12}
    features = {name: np.array([place], dtype=np.float32) for name, place in places.items()}
    # The mean is 5, nearest to c; then e is farthest; then, at a distance of 2, a before d; then one between each.
    assert diversity_order(features) == ["c", "e", "a", "d", "b"]
    # Of those near what is done, none is needed early.
    assert diversity_order(features, [np.array([11.0]), np.array([1.0])]) == ["a", "c", "d", "e", "b"]
    assert diversity_order({}) == []
    equal = {name: np.zeros(1, dtype=np.float32) for name in "ba"}
    assert diversity_order(equal) == ["a", "b"]


def test_uncertainty_is_that_of_the_best_candidates():
    predictor = ImagePredictor(PaintingModel())
    embedding = predictor.embed(np.zeros((40, 64, 3), dtype=np.uint8))
    assert uncertainty(predictor, embedding) == pytest.approx(1 - 0.9)  # painting.CONFIDENCE
    assert predictor.model.prompted == [64]
    with pytest.raises(ConfigError, match="points_per_side"):
        uncertainty(predictor, embedding, 0)


def test_uncertainty_of_a_real_model_lies_in_0_to_1():
    predictor = ImagePredictor(loaded(small_sam()))
    embedding = predictor.embed(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8))
    assert 0 <= uncertainty(predictor, embedding, 2) <= 1


def test_features_leave_the_padding_out():
    features = np.full((2, 8, 8), 100, dtype=np.float32)
    features[:, :4] = np.array([3, 4])[:, None, None]  # the image is half as high as wide
    embedding = Embedding((features,), (20, 40), Preprocessing(input_size=64), "small", "none", "0" * 64)
    assert image_features(embedding) == pytest.approx([0.6, 0.8])
