"""Scores of a model on annotated images, without files, for validation during training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segany.core.embedding import Embedding
from segany.core.errors import DataError, ImageError, check
from segany.data.item import AnnotatedImage, Dataset, SkippedItem
from segany.evaluate.interactive import ClickPlan, box_objects, click_objects
from segany.evaluate.metrics import mean
from segany.evaluate.protocols import ImageSubject
from segany.predict.image import ImageModel, ImagePredictor

DEFAULT_PRED_IOU_THRESH = 0.88
"""SAM's predicted IoU threshold of automatic masks, for models without one of their own."""


@dataclass(frozen=True)
class Scores:
    """Scores of a model. Means are over objects, and None without objects.

    Attributes:
        miou: mean IoU after each click.
        oracle_miou: mean of the highest IoU of the candidates after the first click; None without clicks.
        box_miou: mean IoU of box prompts; None without them.
        predicted_iou_error: mean absolute error of the predicted IoU after the first click.
        above_pred_iou_thresh: share of the objects whose predicted IoU after the first click is above the predicted IoU
            threshold, which automatic mask generation filters by.
        stability_score_p10: 10th percentile of the stability scores after the first click, of the masks whose true IoU
            is above the predicted IoU threshold: at this stability score threshold, automatic mask generation keeps 90%
            of the good masks. None without such masks.
        images, objects: numbers of measured images and objects.
        skipped: images that could not be read.
    """

    miou: tuple[float | None, ...]
    oracle_miou: float | None
    box_miou: float | None
    images: int
    objects: int
    skipped: tuple[SkippedItem, ...] = ()
    predicted_iou_error: float | None = None
    above_pred_iou_thresh: float | None = None
    stability_score_p10: float | None = None

    def numbers(self) -> dict[str, float]:
        """The scores that are not None, by name: `miou_1`, `miou_2`, ..., `oracle_miou_1`, `box_miou`,
        `predicted_iou_error`, `above_pred_iou_thresh` and `stability_score_p10`, in this order.
        """
        found = {f"miou_{count}": value for count, value in enumerate(self.miou, start=1)}
        found |= {"oracle_miou_1": self.oracle_miou, "box_miou": self.box_miou}
        found |= {"predicted_iou_error": self.predicted_iou_error, "above_pred_iou_thresh": self.above_pred_iou_thresh}
        found |= {"stability_score_p10": self.stability_score_p10}
        return {name: value for name, value in found.items() if value is not None}


def evaluate_clicks(
    model: ImageModel,
    data: Dataset | Sequence[AnnotatedImage],
    *,
    clicks: int = 1,
    boxes: bool = True,
    max_images: int | None = None,
    embeddings: Mapping[str, Embedding] | None = None,
) -> Scores:
    """Measure mean IoU after clicks and of boxes, as in `ClickProtocol` and `BoxProtocol`, without writing files.

    Args:
        model: a model that `segany.load` returned. A model in training mode is in evaluation mode meanwhile.
        data: a dataset, or annotated images.
        clicks: number of clicks on each object; 0 for none.
        boxes: whether to measure box prompts as well.
        max_images: number of images to measure, from the first; None for all.
        embeddings: embeddings of images by this model, by image name. Images without one are embedded.

    Raises:
        DataError: there are no images, or none can be read.
        ConfigError: `clicks` or `max_images` is out of range, or neither clicks nor boxes are wanted.
        EmbeddingError: an embedding belongs to another model or other weights.
        MissingExtraError: SciPy is not installed.
    """
    check(clicks >= 0, f"clicks must not be negative, got {clicks}.")
    check(clicks > 0 or boxes, "There is nothing to measure: choose clicks, boxes or both.")
    check(max_images is None or max_images >= 1, f"max_images must be at least 1, got {max_images}.")
    predictor = ImagePredictor(model)
    ious: list[list[float]] = [[] for _ in range(clicks)]
    oracle_ious: list[float] = []
    box_ious: list[float] = []
    predicted: list[float] = []
    stability: list[float] = []
    skipped: list[SkippedItem] = []
    images = objects = 0
    with _in_inference(model):
        for annotated in _images(data, max_images, skipped):
            subject = ImageSubject(predictor, annotated, None if embeddings is None else embeddings.get(annotated.name))
            images += 1
            objects += len(subject.objects)
            if not subject.objects:
                continue
            if clicks:
                for one in click_objects(predictor, subject.embedding, annotated, ClickPlan(max_clicks=clicks)):
                    oracle_ious.append(one.oracle_iou)
                    predicted.append(one.predicted_ious[0])
                    stability.append(one.stability_score)
                    for count, values in enumerate(ious, start=1):
                        values.append(one.iou_after(count))
            if boxes:
                box_ious += [one.iou for one in box_objects(predictor, subject.embedding, annotated)]
    if not images:
        raise DataError(f"There are no images to evaluate{f': {skipped[0].reason}' if skipped else '.'}")
    means = tuple(mean(values) for values in ious)
    threshold = getattr(model, "pred_iou_thresh", DEFAULT_PRED_IOU_THRESH)
    good = [score for score, true in zip(stability, ious[0] if clicks else (), strict=True) if true > threshold]
    return Scores(
        miou=means,
        oracle_miou=mean(oracle_ious),
        box_miou=mean(box_ious),
        images=images,
        objects=objects,
        skipped=tuple(skipped),
        predicted_iou_error=mean(
            [abs(iou - true) for iou, true in zip(predicted, ious[0] if clicks else (), strict=True)]
        ),
        above_pred_iou_thresh=mean([float(iou > threshold) for iou in predicted]),
        stability_score_p10=float(np.quantile(good, 0.1)) if good else None,
    )


def _images(
    data: Dataset | Sequence[AnnotatedImage], max_images: int | None, skipped: list[SkippedItem]
) -> Iterator[AnnotatedImage]:
    if isinstance(data, Sequence):
        yield from data[:max_images]
        return
    for index, name in enumerate(data.names[:max_images]):
        try:
            yield data.read(index)
        except (DataError, ImageError) as error:
            skipped.append(SkippedItem(name, str(error)))


@contextlib.contextmanager
def _in_inference(model: Any) -> Iterator[None]:
    """Set a PyTorch model to evaluation mode, and restore the modes of its modules afterwards."""
    module = getattr(model, "module", None)  # exported models have none
    modules = list(module.modules()) if module is not None and module.training else []
    modes = [part.training for part in modules]  # frozen parts may be in evaluation mode
    if module is not None and modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode
