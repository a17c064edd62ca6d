"""Validation of promptable models in training: scores on held-out images, and pictures of predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from segany.core.arrays import PixelArray
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
"""Held-out images that a validation measures, where no other number is given."""

LOSS_IMAGES, LOSS_MASKS = 16, 4
"""Held-out images of which the validation loss is computed, and masks of each: they stay in memory."""

AUTOMATIC_CONFIG = AutomaticConfig(points_per_side=16)
"""For the automatic masks that a validation counts: a quarter of the points that are usual, and of the time."""

SHOWN = 8
"""Held-out images of which an object is drawn."""


@dataclass(frozen=True)
class ValidatedRecipe(SamRecipe):
    """SAM's training, and how far it is validated.

    Attributes:
        max_val_images: held-out images that a validation measures, spread evenly over all; none measures all.
    """

    max_val_images: int | None = MAX_VAL_IMAGES


class AutomaticScore:
    """How many automatic masks a model finds on one image, beside how many it found before it was trained.

    A decoder that rates its masks wrongly may score well with clicks and boxes, and yet find next to nothing on its
    own: automatic masks are filtered by the predicted IoU.

    Attributes:
        before: how many masks the untouched model finds.
    """

    def __init__(self, model: PromptableModel, image: PixelArray, config: AutomaticConfig = AUTOMATIC_CONFIG) -> None:
        """Count for the untouched model.

        Args:
            model: as it is before training.
            image: uint8 [H, W, 3].
            config: of the generator.
        """
        self._image, self._config = image, config
        self.before = self._count(model)

    @classmethod
    def of(cls, model: PromptableModel, val: Dataset | None) -> AutomaticScore | None:
        """On the first held-out image that can be read; None where there is none."""
        annotated = None if val is None else next(iter(_readable(val)), None)
        return None if annotated is None else cls(model, annotated.image)

    def __call__(self, model: PromptableModel) -> dict[str, float]:
        """`automatic_masks`, and `automatic_masks_before` of the untouched model."""
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
    """Scores of one click and of boxes on held-out images, and pictures of clicks: the validation of a `SamTask`.

    Where the image encoder is not trained, the images are embedded once and stay in memory, 4 MB each with SAM.

    Args:
        val: what to measure by; None, for which there are no scores and pictures.
        max_images: only so many images, spread evenly over the dataset; None for all.
        shown: of how many images an object is drawn.
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
        self.data = None if val is None else _spread(val, max_images)
        self._pictured = None if self.data is None or shown == 0 else _spread(self.data, shown)
        self._embeddings: dict[str, Embedding] = {}
        self._automatic = automatic

    def __call__(self, model: TorchModel) -> dict[str, float]:
        """The numbers of `evaluate_clicks`, of which the first, `miou_1`, decides which checkpoint is the best, and
        those of `AutomaticScore`.

        Raises:
            DataError: none of the images can be read.
        """
        if self.data is None:
            return {}
        scores = evaluate_clicks(model, self.data, embeddings=self._kept(model)).numbers()
        return scores if self._automatic is None else {**scores, **self._automatic(model.module)}

    def pictures(self, model: TorchModel) -> list[PixelArray]:
        """One picture of some objects, each after one click: uint8 [H, W, 3]; none where no object can be shown."""
        if self._pictured is None:
            return []
        predictor, embeddings, tiles = ImagePredictor(model), self._kept(model), []
        for number, annotated in enumerate(_readable(self._pictured)):
            objects = visible_objects(annotated)
            if not objects:
                continue
            known = embeddings.get(annotated.name)
            embedding = predictor.embed(annotated.image) if known is None else known
            index = objects[number % len(objects)]  # not always the first, or they would be alike in some datasets
            (clicked,) = click_objects(predictor, embedding, annotated, ClickPlan(max_clicks=1), [index])
            caption = f"IoU {clicked.ious[-1]:.2f}, 1 click"
            tiles.append(draw_object(annotated, index, clicked.mask, caption, clicked.clicks))
        return [mosaic(tiles, "Held-out images after one click")] if tiles else []

    def _kept(self, model: TorchModel) -> dict[str, Embedding]:
        """Embeddings that need not be computed anew; none where the image encoder learns."""
        if any(parameter.requires_grad for parameter in model.module.image_encoder.parameters()):
            return {}
        if not self._embeddings and self.data is not None:
            predictor = ImagePredictor(model)
            self._embeddings = {one.name: predictor.embed(one.image).to_cpu() for one in _readable(self.data)}
        return self._embeddings


def val_items(
    val: Dataset | None, config: ItemConfig, max_images: int | None = MAX_VAL_IMAGES
) -> tuple[TrainingItem, ...]:
    """Held-out images as items, for the validation loss. Nothing in them is random.

    Args:
        val: what to measure by; for None there are no items.
        config: of the items to train on; augmentation is left out.
        max_images: only so many images, spread evenly over the dataset; None for all.

    Raises:
        ConfigError: `max_images` is out of range.
    """
    check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
    if val is None:
        return ()
    plain = replace(config, jitter=None, crop_area=None, flip=0.0)
    made = [make_item(one, plain, seed) for seed, one in enumerate(_readable(_spread(val, max_images)))]
    return tuple(item for item in made if item is not None)


def _spread(data: Dataset, count: int | None) -> Dataset:
    """So many images of a dataset, evenly far from each other; all where there are no more."""
    if count is None or count >= len(data):
        return data
    return Subset(data, np.linspace(0, len(data) - 1, count).round().astype(int).tolist())


def _readable(data: Dataset) -> Iterable[AnnotatedImage]:
    for index in range(len(data)):
        try:
            yield data.read(index)
        except (DataError, ImageError):
            continue
