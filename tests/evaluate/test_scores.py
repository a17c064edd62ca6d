from __future__ import annotations

import numpy as np
import pytest
from tests.evaluate.painting import SIDE, Images, PaintingModel, blocks
from tests.models_for_tests import loaded, small_sam

from segany import ConfigError, DataError, EmbeddingError, ImagePredictor
from segany.data.item import SkippedItem
from segany.evaluate.scores import evaluate_clicks

ALL = 40 * SIDE


def test_scores_of_images_in_memory():
    scores = evaluate_clicks(PaintingModel(), [blocks("a"), blocks("b", empty=True)], clicks=3)
    assert scores.miou == pytest.approx([(200 + 36) / 2 / ALL, 0.5, 1], abs=1e-15)
    assert (scores.oracle_miou, scores.box_miou, scores.images, scores.objects) == (1, 1, 2, 4)
    assert list(scores.numbers()) == [
        *("miou_1", "miou_2", "miou_3", "oracle_miou_1", "box_miou"),
        *("predicted_iou_error", "above_pred_iou_thresh", "stability_score_p10"),
    ]


def test_what_is_not_asked_for_is_not_there():
    assert list(evaluate_clicks(PaintingModel(), [blocks()], clicks=0).numbers()) == ["box_miou"]
    model = PaintingModel()
    assert list(evaluate_clicks(model, [blocks()], boxes=False).numbers()) == [
        *("miou_1", "oracle_miou_1"),
        *("predicted_iou_error", "above_pred_iou_thresh", "stability_score_p10"),
    ]
    assert model.prompted == [2]


class FlatModel(PaintingModel):
    """The same masks with other logits: the right ones of color 100 are 0.5, below the offset of the threshold."""

    def predict_low_res(self, features, points, labels, mask_logits, *, multimask):
        low_res, scores = super().predict_low_res(features, points, labels, mask_logits, multimask=multimask)
        return np.where((low_res > 0) & (features[0] == 100), 0.5, low_res), scores


def test_stability_scores_are_those_of_good_masks():
    """The first click takes everything, of which 200 and 36 pixels are right: both are good masks above 0."""
    assert evaluate_clicks(PaintingModel(), [blocks()]).stability_score_p10 == 1
    flat = evaluate_clicks(FlatModel(), [blocks()]).stability_score_p10
    assert flat == pytest.approx(1 - 200 / ALL)
    model = PaintingModel()
    model.pred_iou_thresh = 0.5
    assert evaluate_clicks(model, [blocks()]).stability_score_p10 is None


def test_embeddings_that_are_known_are_not_computed():
    model = PaintingModel()
    embeddings = {"a": ImagePredictor(model).embed(blocks().image)}
    evaluate_clicks(model, [blocks("a"), blocks("b")], embeddings=embeddings)
    assert model.embedded == 1 + 1


def test_embeddings_of_another_model_are_refused():
    other = loaded(small_sam())
    embeddings = {"a": ImagePredictor(other).embed(blocks().image)}
    with pytest.raises(EmbeddingError):
        evaluate_clicks(PaintingModel(), [blocks("a")], embeddings=embeddings)


def test_of_a_dataset_damaged_images_are_skipped_and_named():
    data = Images(blocks("a"), "torn", blocks("c"))
    scores = evaluate_clicks(PaintingModel(), data)
    assert (scores.images, scores.skipped) == (2, (SkippedItem("torn", "torn is damaged."),))
    assert evaluate_clicks(PaintingModel(), data, max_images=1).images == 1


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(DataError, match="no images"):
        evaluate_clicks(PaintingModel(), [])
    with pytest.raises(DataError, match="torn is damaged"):
        evaluate_clicks(PaintingModel(), Images("torn"))
    for wrong in ({"clicks": -1}, {"clicks": 0, "boxes": False}, {"max_images": 0}):
        with pytest.raises(ConfigError):
            evaluate_clicks(PaintingModel(), [blocks()], **wrong)


def test_a_model_in_training_is_back_in_it_afterwards():
    model = small_sam()
    model.train()
    model.image_encoder.eval()  # frozen
    modes = []
    model.mask_decoder.register_forward_hook(lambda module, *_: modes.append(module.training))
    evaluate_clicks(loaded(model), [blocks()])
    assert set(modes) == {False}
    assert model.training
    assert model.mask_decoder.training
    assert not model.image_encoder.training
