"""Scores of a model on images in memory: what validation during training needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segany.core.embedding import Embedding
from segany.core.errors import DataError, ImageError, check
from segany.data.item import AnnotatedImage, Dataset
from segany.evaluate.interactive import ClickPlan, box_objects, click_objects
from segany.evaluate.metrics import mean
from segany.evaluate.protocols import ImageSubject
from segany.predict.image import ImageModel, ImagePredictor


@dataclass(frozen=True)
class Scores:
    """How good the masks of a model are. Means are over objects, and None where there are none.

    Attributes:
        miou: mean IoU after each click, as many as there were.
        oracle_miou: of the best of the candidates after the first click; None without clicks.
        box_miou: of boxes; None without them.
        images, objects: how many were measured.
        skipped: images that could not be read: name and reason.
    """

    miou: tuple[float | None, ...]
    oracle_miou: float | None
    box_miou: float | None
    images: int
    objects: int
    skipped: tuple[tuple[str, str], ...] = ()

    def numbers(self) -> dict[str, float]:
        """What there is of `miou_1`, `miou_2`, ..., `oracle_miou_1` and `box_miou`, in this order."""
        found = {f"miou_{count}": value for count, value in enumerate(self.miou, start=1)}
        found |= {"oracle_miou_1": self.oracle_miou, "box_miou": self.box_miou}
        return {name: value for name, value in found.items() if value is not None}


def evaluate_clicks(
    model: ImageModel,
    data: Dataset | Sequence[AnnotatedImage],
    *,
    clicks: int = 1,
    boxes: bool = True,
    limit: int | None = None,
    embeddings: Mapping[str, Embedding] | None = None,
) -> Scores:
    """Mean IoU after clicks and of boxes, by the protocols `ClickProtocol` and `BoxProtocol`; no files are written.

    Args:
        model: what `segany.load` returns. One in training is switched to inference meanwhile.
        data: a dataset, or annotated images.
        clicks: how many on each object; 0 for none.
        boxes: whether to prompt with boxes as well.
        limit: only so many images, the first ones.
        embeddings: of the images, by name, made by this model; images that are not among them are embedded.

    Raises:
        DataError: there are no images, or none can be read.
        ConfigError: `clicks` or `limit` is out of range, or nothing is to be measured.
        EmbeddingError: an embedding was made by another model or other weights.
        MissingExtraError: SciPy is not installed.
    """
    check(clicks >= 0, f"clicks must not be negative, got {clicks}.")
    check(clicks > 0 or boxes, "There is nothing to measure: ask for clicks, boxes or both.")
    check(limit is None or limit >= 1, f"limit must be at least 1, got {limit}.")
    predictor = ImagePredictor(model)
    ious: list[list[float]] = [[] for _ in range(clicks)]
    oracle_ious: list[float] = []
    box_ious: list[float] = []
    skipped: list[tuple[str, str]] = []
    images = objects = 0
    with _in_inference(model):
        for annotated in _images(data, limit, skipped):
            subject = ImageSubject(predictor, annotated, None if embeddings is None else embeddings.get(annotated.name))
            images += 1
            objects += len(subject.objects)
            if not subject.objects:
                continue
            if clicks:
                for one in click_objects(predictor, subject.embedding, annotated, ClickPlan(max_clicks=clicks)):
                    oracle_ious.append(one.oracle_iou)
                    for count, values in enumerate(ious, start=1):
                        values.append(one.iou_after(count))
            if boxes:
                box_ious += [one.iou for one in box_objects(predictor, subject.embedding, annotated)]
    if not images:
        raise DataError(f"There are no images to evaluate{f': {skipped[0][1]}' if skipped else '.'}")
    means = tuple(mean(values) for values in ious)
    return Scores(means, mean(oracle_ious), mean(box_ious), images, objects, tuple(skipped))


def _images(
    data: Dataset | Sequence[AnnotatedImage], limit: int | None, skipped: list[tuple[str, str]]
) -> Iterator[AnnotatedImage]:
    if isinstance(data, Sequence):
        yield from data[:limit]
        return
    for index, name in enumerate(data.names[:limit]):
        try:
            yield data.read(index)
        except (DataError, ImageError) as error:
            skipped.append((name, str(error)))


@contextlib.contextmanager
def _in_inference(model: Any) -> Iterator[None]:
    """Switch off what a module does in training only, such as dropping paths."""
    module = getattr(model, "module", None)  # of a model in PyTorch
    modules = list(module.modules()) if module is not None and module.training else []
    modes = [part.training for part in modules]  # parts that are not trained may be in inference already
    if module is not None and modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode
