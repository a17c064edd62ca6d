from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.evaluate.painting import Images, PaintingModel, blocks
from tests.models_for_tests import loaded, small_sam
from tests.train.test_sam_task import SHORT, small_model
from torch import nn

import segany
from segany.core.errors import ConfigError, DataError
from segany.data.shapes import Shapes
from segany.data.transforms import ItemConfig
from segany.evaluate.failures import CAPTION, TILE
from segany.evaluate.scores import evaluate_clicks
from segany.models.model_file import save_model
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
from segany.train.batches import ShowsSamples
from segany.train.sam_task import SamTask
from segany.train.validation import AutomaticScore, ClickScores, stability_score_thresh, val_items


class Painter(PaintingModel):
    """The painting model with an image encoder that learns, or does not."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.module = SimpleNamespace(image_encoder=nn.Linear(1, 1).requires_grad_(learns), training=False)


def painter(*, learns: bool) -> Any:
    return Painter(learns=learns)


def test_the_scores_are_those_of_the_evaluation():
    data = Images(blocks("a"), blocks("b", empty=True))
    scores = ClickScores(data)(painter(learns=False))
    assert scores == {**evaluate_clicks(PaintingModel(), data).numbers(), "stability_score_thresh": 0.95}
    assert next(iter(scores)) == "miou_1"


@pytest.mark.parametrize("learns", [False, True])
def test_images_are_embedded_again_only_where_the_encoder_learns(learns):
    model, scores = painter(learns=learns), ClickScores(Images(blocks("a"), "torn", blocks("c")))
    for _ in range(3):
        scores(model)
    scores.pictures(model)
    assert cast(PaintingModel, model).embedded == (2 * 4 if learns else 2)


def test_a_limit_takes_images_from_all_over_the_dataset():
    data = Shapes(101, side=32)
    scores = ClickScores(data, 3)
    assert scores.data is not None
    assert scores.data.names == (data.names[0], data.names[50], data.names[100])
    assert ClickScores(data, None).data is data
    for wrong in ({"max_images": 0}, {"shown": -1}):
        with pytest.raises(ConfigError):
            ClickScores(data, **wrong)


def test_pictures_show_annotation_and_prediction():
    (picture,) = ClickScores(Images(blocks("a"), "torn", blocks("c"))).pictures(painter(learns=True))
    gap = 6
    assert picture.shape == (CAPTION + TILE + CAPTION + gap, 2 * (TILE + gap) + gap, 3)
    assert picture.dtype == np.uint8
    left, right = picture[CAPTION:, gap : gap + TILE], picture[CAPTION:, -gap - TILE : -gap]
    assert not np.array_equal(left, right)  # another object of the same picture
    assert ClickScores(Images(blocks("a")), shown=0).pictures(painter(learns=True)) == []


def test_without_held_out_images_there_is_nothing():
    scores = ClickScores(None)
    assert scores(painter(learns=True)) == {}
    assert scores.pictures(painter(learns=True)) == []


def test_a_dataset_that_cannot_be_read_is_an_error():
    with pytest.raises(DataError, match="torn is damaged"):
        ClickScores(Images("torn"))(painter(learns=False))


def test_val_items_have_nothing_random():
    config = ItemConfig(side=64, jitter=(0.5, 2.0), flip=1.0, needs_masks=False)
    data = Images(blocks("a"), "torn", blocks("c"))
    items = val_items(data, config)
    assert [(item.name, len(item.masks)) for item in items] == [("a", 0), ("c", 0)]
    assert np.array_equal(items[0].image, blocks("a").image)  # neither mirrored nor scaled
    assert [item.name for item in val_items(data, config, 1)] == ["a"]
    assert val_items(None, config) == ()
    with pytest.raises(ConfigError):
        val_items(data, config, 0)


class Constant(nn.Module):
    """A loss of the IoU head that changes nothing else: all masks are rated alike."""

    def __init__(self, iou: float) -> None:
        super().__init__()
        self.iou = iou

    def forward(self, tokens: Any) -> Any:
        return tokens.new_full((*tokens.shape[:-1], 4), self.iou)


def test_a_broken_iou_head_is_seen() -> None:
    """Clicks and boxes alone would not tell: automatic masks are filtered by the predicted IoU."""
    model = small_sam()
    images, few = Shapes(2, side=64), AutomaticConfig(points_per_side=2, stability_score_thresh=0.0)
    for iou in (0.95, 0.5):
        model.mask_decoder.iou_prediction_head = Constant(iou)
        scores = ClickScores(images)(loaded(model))
        assert scores["above_pred_iou_thresh"] == (iou > 0.88)
        assert scores["predicted_iou_error"] > 0.3  # an untrained model's masks are wrong
    model.mask_decoder.iou_prediction_head = Constant(0.95)
    counted = AutomaticScore(model, images.read(0).image, few)
    assert counted.before > 0
    model.mask_decoder.iou_prediction_head = Constant(0.5)
    model.train()
    assert counted(model) == {"automatic_masks": 0, "automatic_masks_before": counted.before}
    assert model.training
    assert AutomaticScore.of(model, None) is None


def test_a_model_gets_the_stability_score_threshold_that_fits_it(tmp_path) -> None:
    """Where the logits of its good masks are not steep, the published threshold would drop all of its masks."""
    model = small_sam()
    model.pred_iou_thresh = 0.0  # so that an untrained model's masks are good ones
    images = Shapes(4, side=64)
    scores = ClickScores(images)(loaded(model))
    assert scores["stability_score_thresh"] == np.floor(scores["stability_score_p10"] * 100) / 100 < 0.95
    again = segany.load(save_model(model, tmp_path / "tuned.safetensors"))
    assert again.stability_score_thresh == model.stability_score_thresh == scores["stability_score_thresh"]
    few = {"points_per_side": 4, "pred_iou_thresh": 0.0}

    def count(**settings: float) -> int:
        generator = AutomaticMaskGenerator(again, AutomaticConfig(**few, **settings))
        return len(generator.generate(images.read(0).image))

    assert count() == count(stability_score_thresh=again.stability_score_thresh) > count(stability_score_thresh=0.95)


@pytest.mark.parametrize(("good_p10", "thresh"), [(None, 0.95), (0.999, 0.95), (0.95, 0.95), (0.8371, 0.83), (0, 0)])
def test_stability_score_threshold_keeps_nine_of_ten_good_masks(good_p10: float | None, thresh: float) -> None:
    assert stability_score_thresh(good_p10) == thresh


def test_the_validation_loss_is_that_of_training_without_dropping(tmp_path) -> None:
    data = Shapes(3, side=64)
    items = val_items(data, ItemConfig(side=128))
    task = SamTask(small_model(), replace(SHORT, drop_path=0.5), val_items=items)
    (first, second) = (task.validate()["val_loss"] for _ in range(2))
    plain = SamTask(small_model(), replace(SHORT, drop_path=0.0), val_items=items)
    expected = [loss.total.item() for loss in plain.losses(items)]
    assert first == second == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_a_task_shows_the_pictures_of_its_validation():
    task = SamTask(small_model(), SHORT, validation=ClickScores(Shapes(3, side=64), shown=1))
    assert isinstance(task, ShowsSamples)
    assert list(task.validate()) == [
        *("miou_1", "oracle_miou_1", "box_miou"),
        *("predicted_iou_error", "above_pred_iou_thresh", "stability_score_thresh"),
    ]
    (picture,) = task.samples()
    assert picture.shape[1] == TILE + 12
    assert SamTask(small_sam(), SHORT).samples() == ()
