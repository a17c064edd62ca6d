from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.models_for_tests import loaded, small_sam

import segany
from segany import AutomaticConfig, AutomaticMaskGenerator, ConfigError, EmbeddingError, ImagePredictor
from segany.core.progress import ProgressEvent
from segany.models.sam.model import Sam
from segany.models.sam2.model import Sam2
from segany.runtime.torch_model import TorchModel

# Seeded weights make poor masks, so nearly everything is let through.
LENIENT = AutomaticConfig(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)


@pytest.fixture(scope="module")
def model() -> TorchModel:
    return loaded(small_sam())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (90, 140, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pred_iou_thresh": 1.1}, "pred_iou_thresh must lie in 0..1"),
        ({"stability_score_thresh": -0.1}, "stability_score_thresh must lie in 0..1"),
        ({"box_nms_thresh": 2}, "box_nms_thresh must lie in 0..1"),
        ({"crop_nms_thresh": float("nan")}, "crop_nms_thresh must be finite"),
        ({"points_per_side": 0}, "points_per_side must be at least 1"),
        ({"points_per_batch": 0}, "points_per_batch must be at least 1"),
        ({"crop_n_layers": -1}, "crop_n_layers must not be negative"),
        ({"crop_overlap_ratio": 1.0}, "crop_overlap_ratio must lie in"),
        ({"min_mask_region_area": -1}, "min_mask_region_area must not be negative"),
        ({"max_mask_fraction": 0}, "max_mask_fraction must lie in"),
        ({"points_per_side": 2, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}, "no points for layer 2"),
        ({"point_grids": ([[0.5, 1.5]],)}, "must lie in 0..1: they are shares"),
        ({"point_grids": ([],)}, r"must be \[N, 2\]"),
        ({"point_grids": (np.zeros((0, 2)),)}, "A point grid is empty"),
        ({"point_grids": ([[0.5, 0.5]],), "crop_n_layers": 1}, "point_grids must be 2 grids"),
    ],
)
def test_settings_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutomaticConfig(**arguments)  # type: ignore[arg-type]


def test_defaults_are_the_official_ones() -> None:
    config = AutomaticConfig()
    assert (config.points_per_side, config.pred_iou_thresh, config.stability_score_thresh) == (32, None, None)
    assert (Sam.pred_iou_thresh, Sam2.pred_iou_thresh) == (0.88, 0.8)
    assert (Sam.stability_score_thresh, Sam2.stability_score_thresh) == (0.95, 0.95)
    assert (config.box_nms_thresh, config.crop_n_layers, config.crop_nms_thresh) == (0.7, 0, 0.7)
    assert config.crop_overlap_ratio == 512 / 1500
    assert len(config.grid(0)) == 1024
    assert AutomaticConfig.sa1b().crop_n_layers == 2
    assert AutomaticConfig.sa1b().max_mask_fraction == 0.95


def test_records_are_consistent_and_best_first(model: TorchModel, image: np.ndarray) -> None:
    instances = AutomaticMaskGenerator(model, LENIENT).generate(image)
    assert len(instances) > 0
    assert instances.size_hw == (90, 140)
    scores = [instance.predicted_iou for instance in instances]
    assert scores == sorted(scores, reverse=True)
    for instance in instances:
        mask = instance.mask
        y, x = np.nonzero(mask)
        assert instance.area == len(x)
        assert instance.box_xyxy == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert instance.crop_box_xyxy == (0, 0, 140, 90)
        assert instance.source == "automatic"
        assert instance.score == instance.predicted_iou


def test_masks_are_those_of_the_predictor(model: TorchModel, image: np.ndarray) -> None:
    predictor = ImagePredictor(model)
    embedding = predictor.embed(image)
    for instance in AutomaticMaskGenerator(model, LENIENT).generate(image):
        prediction = predictor.predict(embedding, segany.Prompt(points_xy=[instance.point_xy]))
        index = int(np.abs(prediction.scores[0] - instance.predicted_iou).argmin())
        assert prediction.scores[0, index] == pytest.approx(instance.predicted_iou, abs=1e-4)
        assert (prediction.masks[0, index] == instance.mask).mean() > 0.999


def test_an_embedding_gives_the_same(model: TorchModel, image: np.ndarray) -> None:
    generator = AutomaticMaskGenerator(model, LENIENT)
    from_image = generator.generate(image)
    from_embedding = generator.generate(generator.predictor.embed(image))
    assert from_embedding == from_image


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_points_per_batch_does_not_change_the_masks(model: TorchModel, image: np.ndarray, batch: int) -> None:
    expected = AutomaticMaskGenerator(model, LENIENT).generate(image)
    config = dataclasses.replace(LENIENT, points_per_batch=batch)
    got = AutomaticMaskGenerator(model, config).generate(image)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert (one.mask == other.mask).mean() > 0.999


def test_crops_search_parts_and_report_them(
    monkeypatch: pytest.MonkeyPatch, model: TorchModel, image: np.ndarray
) -> None:
    # Masks of seeded weights reach over their whole crop.
    monkeypatch.setattr(
        "segany.predict.automatic.is_box_near_crop_edge", lambda boxes, *_: np.zeros(len(boxes), np.bool_)
    )
    config = dataclasses.replace(LENIENT, crop_n_layers=1, crop_nms_thresh=1.0, box_nms_thresh=1.0)
    told: list[ProgressEvent] = []
    instances = AutomaticMaskGenerator(model, config).generate(image, progress=told.append)
    assert len({instance.crop_box_xyxy for instance in instances}) > 1
    assert {(event.task, event.total, event.unit) for event in told} == {("automatic masks", 9 * 5, "points")}
    assert [event.done for event in told] == sorted(event.done for event in told)
    assert told[-1].done == 45
    for instance in instances:  # a mask never leaves its crop
        left, top, right, bottom = instance.crop_box_xyxy
        x0, y0, x1, y1 = instance.box_xyxy
        assert left <= x0 < x1 <= right
        assert top <= y0 < y1 <= bottom


def test_crops_of_an_embedding_are_refused(model: TorchModel, image: np.ndarray) -> None:
    generator = AutomaticMaskGenerator(model, dataclasses.replace(LENIENT, crop_n_layers=1))
    with pytest.raises(ConfigError, match="an embedding holds only the whole"):
        generator.generate(generator.predictor.embed(image))


def test_an_embedding_of_another_model_is_refused(model: TorchModel, image: np.ndarray) -> None:
    embedding = dataclasses.replace(ImagePredictor(model).embed(image), model="another")
    with pytest.raises(EmbeddingError, match="made by 'another'"):
        AutomaticMaskGenerator(model, LENIENT).generate(embedding)


def test_limits_of_area(model: TorchModel, image: np.ndarray) -> None:
    everything = AutomaticMaskGenerator(model, LENIENT).generate(image)
    areas = sorted(instance.area for instance in everything)
    middle = areas[len(areas) // 2]
    large = AutomaticMaskGenerator(model, dataclasses.replace(LENIENT, min_mask_area=middle)).generate(image)
    assert min(instance.area for instance in large) >= middle
    config = dataclasses.replace(LENIENT, max_mask_fraction=middle / (90 * 140))
    assert max(instance.area for instance in AutomaticMaskGenerator(model, config).generate(image)) < middle


def test_cleanup_leaves_no_small_holes_and_islands(model: TorchModel, image: np.ndarray) -> None:
    from segany.imaging.components import find_components

    config = dataclasses.replace(LENIENT, min_mask_region_area=60)
    for instance in AutomaticMaskGenerator(model, config).generate(image):
        for part in (instance.mask, ~instance.mask):
            areas = find_components(part).areas
            assert not len(areas) or areas.min() >= 60


def test_nothing_good_enough_is_an_empty_result(model: TorchModel, image: np.ndarray) -> None:
    strict = dataclasses.replace(LENIENT, stability_score_thresh=1.0)
    for picture in (image, np.zeros((90, 140), np.uint8)):
        instances = AutomaticMaskGenerator(model, dataclasses.replace(strict, min_mask_area=10**6)).generate(picture)
        assert len(instances) == 0
        assert instances.size_hw == (90, 140)
        assert not instances.to_label_map().any()


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_tiny_and_thin_images_are_accepted(model: TorchModel, size_hw: tuple[int, int]) -> None:
    instances = AutomaticMaskGenerator(model, LENIENT).generate(np.full(size_hw, 90, np.uint8))
    assert instances.size_hw == size_hw
