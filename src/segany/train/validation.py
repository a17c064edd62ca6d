"""Validation of promptable models during training: scores on the validation set, and pictures of predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from segany.core.arrays import STABILITY_SCORE_THRESH, PixelArray
from segany.core.embedding import Embedding
from segany.core.errors import DataError, ImageError, check
from segany.data.item import AnnotatedImage, Dataset, TrainingItem
from segany.data.subsets import Subset
from segany.data.transforms import ItemConfig, make_item
from segany.evaluate.failures import draw_object, mosaic
from segany.evaluate.interactive import ClickPlan, click_objects, visible_objects
from segany.evaluate.scores import evaluate_clicks
from segany.models.promptable import PromptableModel
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
from segany.predict.image import ImagePredictor
from segany.runtime.torch_model import TorchModel
from segany.train.sam_recipe import SamRecipe

MAX_VAL_IMAGES = 50
"""Default number of images that a validation measures."""

LOSS_IMAGES, LOSS_MASKS = 16, 4
"""Number of images for the validation loss, and of masks of each. They stay in memory."""

AUTOMATIC_CONFIG = AutomaticConfig(points_per_side=16)
"""Config of automatic mask generation in a validation: a quarter of the default points, in a quarter of the time."""

SHOWN = 8
"""Number of validation images of which one object is drawn."""


@dataclass(frozen=True)
class ValidatedRecipe(SamRecipe):
    """SAM's training with a validation.

    Attributes:
        max_val_images: number of images that a validation measures, evenly spaced in the validation set; none measures
            all.
    """

    max_val_images: int | None = MAX_VAL_IMAGES


class AutomaticScore:
    """Counts the automatic masks of a model on one image, and compares the count with that before training.

    Automatic mask generation filters masks by the predicted IoU. A decoder that predicts the IoU wrongly may score well
    with clicks and boxes, but find almost no automatic masks.

    Attributes:
        before: number of automatic masks before training.
    """

    def __init__(self, model: PromptableModel, image: PixelArray, config: AutomaticConfig = AUTOMATIC_CONFIG) -> None:
        """Count the automatic masks before training.

        Args:
            model: the model before training.
            image: uint8 [H, W, 3].
            config: config of the automatic mask generator.
        """
        self._image, self._config = image, config
        self.before = self._count(model)

    @classmethod
    def of(cls, model: PromptableModel, val: Dataset | None) -> AutomaticScore | None:
        """The score on the first readable image of the validation set; None if there is none."""
        annotated = None if val is None else next(iter(readable(val)), None)
        return None if annotated is None else cls(model, annotated.image)

    def __call__(self, model: PromptableModel) -> dict[str, float]:
        """The counts `automatic_masks` of the current model and `automatic_masks_before` training."""
        return {"automatic_masks": self._count(model), "automatic_masks_before": self.before}

    def _count(self, model: PromptableModel) -> int:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return len(AutomaticMaskGenerator(TorchModel(model), self._config).generate(self._image))
        finally:
            for module, mode in modes:
                module.training = mode


class ClickScores:
    """The validation of a `SamTask`: scores of one click and of boxes, and pictures of clicks.

    If the image encoder is frozen, the images are embedded once and the embeddings stay in memory, 4 MB each with SAM.

    Args:
        val: the validation set; None for no scores and pictures.
        max_images: number of images to measure, evenly spaced in the validation set; None for all.
        shown: number of images of which one object is drawn.
        automatic: counts automatic masks too.

    Raises:
        ConfigError: `max_images` or `shown` is out of range.
    """

    def __init__(
        self,
        val: Dataset | None,
        max_images: int | None = MAX_VAL_IMAGES,
        *,
        shown: int = SHOWN,
        automatic: AutomaticScore | None = None,
    ) -> None:
        check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
        check(shown >= 0, f"shown must not be negative, got {shown}.")
        self.data = None if val is None else spread(val, max_images)
        self._pictured = None if self.data is None or shown == 0 else spread(self.data, shown)
        self._embeddings: dict[str, Embedding] = {}
        self._automatic = automatic

    def __call__(self, model: TorchModel) -> dict[str, float]:
        """The scores of `evaluate_clicks` and of `AutomaticScore`. The first, `miou_1`, selects the best checkpoint.

        The model gets the stability score threshold of automatic masks that fits it; see `stability_score_thresh`.

        Raises:
            DataError: none of the images can be read.
        """
        if self.data is None:
            return {}
        measured = evaluate_clicks(model, self.data, embeddings=self._kept(model))
        model.module.stability_score_thresh = stability_score_thresh(measured.stability_score_p10)
        scores = {**measured.numbers(), "stability_score_thresh": model.module.stability_score_thresh}
        return scores if self._automatic is None else {**scores, **self._automatic(model.module)}

    def pictures(self, model: TorchModel) -> list[PixelArray]:
        """One picture, uint8 [H, W, 3], of some objects after one click each; an empty list without objects."""
        if self._pictured is None:
            return []
        predictor, embeddings, tiles = ImagePredictor(model), self._kept(model), []
        for number, annotated in enumerate(readable(self._pictured)):
            objects = visible_objects(annotated)
            if not objects:
                continue
            known = embeddings.get(annotated.name)
            embedding = predictor.embed(annotated.image) if known is None else known
            index = objects[number % len(objects)]  # in some datasets the first objects of all images are alike
            (clicked,) = click_objects(predictor, embedding, annotated, ClickPlan(max_clicks=1), [index])
            caption = f"IoU {clicked.ious[-1]:.2f}, 1 click"
            tiles.append(draw_object(annotated, index, clicked.mask, caption, clicked.clicks))
        return [mosaic(tiles, "Held-out images after one click")] if tiles else []

    def _kept(self, model: TorchModel) -> dict[str, Embedding]:
        """The embeddings by image name, computed once; empty if the image encoder is trained."""
        if any(parameter.requires_grad for parameter in model.module.image_encoder.parameters()):
            return {}
        if not self._embeddings and self.data is not None:
            predictor = ImagePredictor(model)
            self._embeddings = {one.name: predictor.embed(one.image).to_cpu() for one in readable(self.data)}
        return self._embeddings


def val_items(
    val: Dataset | None, config: ItemConfig, max_images: int | None = MAX_VAL_IMAGES
) -> tuple[TrainingItem, ...]:
    """Items of the validation set, without augmentation, for the validation loss.

    Args:
        val: the validation set; None for no items.
        config: config of the training items.
        max_images: number of images, evenly spaced in the validation set; None for all.

    Raises:
        ConfigError: `max_images` is out of range.
    """
    check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
    if val is None:
        return ()
    plain = replace(config, jitter=None, crop_area=None, flip=0.0)
    made = [make_item(one, plain, seed) for seed, one in enumerate(readable(spread(val, max_images)))]
    return tuple(item for item in made if item is not None)


def stability_score_thresh(good_p10: float | None) -> float:
    """The threshold on the stability score of automatic masks for a model, by the scores of its good masks.

    The stability score tells how far a mask changes if the threshold of its logits does. Unlike the predicted IoU, it
    is no estimate of quality: with the same masks it depends on how steep the logits are at their edges. Training on
    objects without sharp edges, such as organs in an X-ray, makes the logits less steep, and at the threshold of the
    official code a model could lose all of its masks. The threshold is therefore one that keeps 90% of the good masks.

    Args:
        good_p10: `Scores.stability_score_p10`; None without good masks.

    Returns:
        The percentile, rounded down to hundredths, but at most the threshold of the official code.
    """
    if good_p10 is None:
        return STABILITY_SCORE_THRESH
    return min(STABILITY_SCORE_THRESH, math.floor(good_p10 * 100) / 100)


def spread(data: Dataset, count: int | None) -> Dataset:
    """Return `count` evenly spaced images of a dataset, or all if it has no more."""
    if count is None or count >= len(data):
        return data
    return Subset(data, np.linspace(0, len(data) - 1, count).round().astype(int).tolist())


def readable(data: Dataset) -> Iterable[AnnotatedImage]:
    """Yield the images of a dataset, without those that are damaged."""
    for index in range(len(data)):
        try:
            yield data.read(index)
        except (DataError, ImageError):
            continue
