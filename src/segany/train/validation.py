"""What a promptable model scores on held-out images while it is trained, and pictures of how it answers."""

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
from segany.predict.image import ImagePredictor
from segany.runtime.torch_model import TorchModel
from segany.train.sam_recipe import SamRecipe

SCORED = 50
"""Held-out images that a validation measures, where no other number is given."""

SHOWN = 8
"""Held-out images of which an object is drawn."""


@dataclass(frozen=True)
class ScoredRecipe(SamRecipe):
    """SAM's training, and how far it is measured.

    Attributes:
        scored: held-out images that a validation measures, spread evenly over all; none measures all.
    """

    scored: int | None = SCORED


class ClickScores:
    """Mean IoU of one click and of boxes on held-out images, and pictures of clicks: the validation of a `SamTask`.

    Where the image encoder is not trained, the images are embedded once and stay in memory, 4 MB each with SAM.

    Args:
        held_out: what to measure by; None, for which there are no scores and pictures.
        limit: only so many images, spread evenly over the dataset; None for all.
        shown: of how many images an object is drawn.

    Raises:
        ConfigError: `limit` or `shown` is out of range.
    """

    def __init__(self, held_out: Dataset | None, limit: int | None = SCORED, *, shown: int = SHOWN) -> None:
        check(limit is None or limit >= 1, f"limit must be at least 1, got {limit}.")
        check(shown >= 0, f"shown must not be negative, got {shown}.")
        self.data = None if held_out is None else _spread(held_out, limit)
        self._pictured = None if self.data is None or shown == 0 else _spread(self.data, shown)
        self._embeddings: dict[str, Embedding] = {}

    def __call__(self, model: TorchModel) -> dict[str, float]:
        """`miou_1`, which decides which checkpoint is the best, `oracle_miou_1` and `box_miou`.

        Raises:
            DataError: none of the images can be read.
        """
        if self.data is None:
            return {}
        return evaluate_clicks(model, self.data, embeddings=self._kept(model)).numbers()

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


def held_out_items(
    held_out: Dataset | None, config: ItemConfig, limit: int | None = SCORED
) -> tuple[TrainingItem, ...]:
    """Held-out images as items, for tasks that are measured by their loss. Nothing in them is random.

    Args:
        held_out: what to measure by; for None there are no items.
        config: of the items to train on; jitter and flips are left out.
        limit: only so many images, spread evenly over the dataset; None for all.

    Raises:
        ConfigError: `limit` is out of range.
    """
    check(limit is None or limit >= 1, f"limit must be at least 1, got {limit}.")
    if held_out is None:
        return ()
    plain = replace(config, jitter=None, flip=0.0)
    made = [make_item(one, plain, seed) for seed, one in enumerate(_readable(_spread(held_out, limit)))]
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
