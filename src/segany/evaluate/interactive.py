"""Simulated prompts on the objects of one image: iterative clicks, and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from segany.core.arrays import BoolArray
from segany.core.embedding import Embedding
from segany.core.errors import check
from segany.core.prediction import MaskPrediction
from segany.core.prompt import Prompt
from segany.data.item import AnnotatedImage
from segany.evaluate.clicks import Click, NextClick, ritm_click, sam_click
from segany.evaluate.metrics import mask_iou
from segany.imaging.processor import ImageProcessor
from segany.predict.automatic import AutomaticConfig
from segany.predict.image import ImagePredictor

ClickRule: TypeAlias = Literal["sam", "ritm"]

RULES: dict[ClickRule, NextClick] = {"sam": sam_click, "ritm": ritm_click}

PIXELS_AT_ONCE = 64_000_000
"""Largest number of mask pixels in one prediction, which bounds the memory: a byte each, and one for the targets."""

OBJECTS_AT_ONCE = 32
"""Largest number of objects in one prediction."""


@dataclass(frozen=True)
class ClickPlan:
    """Configuration of simulated clicks.

    Attributes:
        rule: the click rule, `clicks.sam_click` or `clicks.ritm_click`.
        max_clicks: largest number of clicks on an object.
        stop_iou: IoU at which the clicks on an object end; None for always `max_clicks`.
    """

    rule: ClickRule = "sam"
    max_clicks: int = 5
    stop_iou: float | None = None

    def __post_init__(self) -> None:
        check(self.rule in RULES, f"rule must be one of {list(RULES)}, got {self.rule!r}.")
        check(self.max_clicks >= 1, f"max_clicks must be at least 1, got {self.max_clicks}.")
        check(self.stop_iou is None or 0 < self.stop_iou <= 1, f"stop_iou must lie in 0..1, got {self.stop_iou}.")


@dataclass(frozen=True, eq=False)
class ClickedObject:
    """The result of simulated clicks on one object.

    Attributes:
        index: index of the object in its image.
        clicks: the clicks, in order.
        ious: IoU after each click. There are fewer than `max_clicks` if the clicks ended early.
        predicted_ious: predicted IoU of the same masks.
        candidate: index of the mask that was taken among the candidates after the first click.
        oracle_iou: highest true IoU of the candidates after the first click.
        stability_score: stability score of the mask after the first click, as in automatic mask generation.
        mask: bool [H, W], the last predicted mask.
    """

    index: int
    clicks: tuple[Click, ...]
    ious: tuple[float, ...]
    predicted_ious: tuple[float, ...]
    candidate: int
    oracle_iou: float
    stability_score: float
    mask: BoolArray

    def iou_after(self, count: int) -> float:
        """The IoU after `count` clicks, or after the last click if there are fewer."""
        return self.ious[min(count, len(self.ious)) - 1]


@dataclass(frozen=True, eq=False)
class BoxedObject:
    """The result of a box prompt for one object.

    Attributes:
        index: index of the object in its image.
        iou: IoU of the predicted mask.
        mask: bool [H, W], the predicted mask.
    """

    index: int
    iou: float
    mask: BoolArray


def visible_objects(annotated: AnnotatedImage) -> list[int]:
    """The indices of objects with at least one pixel. Other objects cannot be prompted."""
    return [index for index, (x0, _, x1, _) in enumerate(annotated.objects.mask_boxes_xyxy.tolist()) if x1 > x0]


def click_objects(
    predictor: ImagePredictor,
    embedding: Embedding,
    annotated: AnnotatedImage,
    plan: ClickPlan,
    only: Sequence[int] | None = None,
) -> Iterator[ClickedObject]:
    """Simulate clicks on the objects of an image (SAM, section D.1; RITM, section 5.1).

    For the first click, the model predicts three candidates, of which the one with the highest predicted IoU is taken.
    Each further prompt consists of all clicks so far and the low-res logits of the previous mask, and has one
    candidate.

    Args:
        predictor: the predictor.
        embedding: embedding of the image.
        annotated: the image and its objects.
        plan: configuration of the clicks.
        only: indices of the objects; by default all visible ones.

    Yields:
        The result for each object, in order.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    for indices in _batches(annotated, only):
        runs = [_Run(index, annotated.objects.mask(index)) for index in indices]
        waiting = runs
        for _ in range(plan.max_clicks):
            waiting = [run for run in waiting if not run.is_done(plan) and run.click(RULES[plan.rule])]
            if not waiting:
                break
            prediction = predictor.predict(embedding, [run.prompt for run in waiting])
            for number, run in enumerate(waiting):
                run.add_prediction(prediction[number], predictor.model.processor)
        yield from (run.result() for run in runs)


class _Run:
    """The simulation of clicks on one object."""

    def __init__(self, index: int, target: BoolArray) -> None:
        self.index, self.target = index, target
        self.mask = np.zeros_like(target)
        self.clicks: list[Click] = []
        self.ious: list[float] = []
        self.predicted_ious: list[float] = []
        self.candidate = 0
        self.oracle_iou = 0.0
        self.stability_score = 0.0
        self.before: MaskPrediction | None = None

    def is_done(self, plan: ClickPlan) -> bool:
        return plan.stop_iou is not None and bool(self.ious) and self.ious[-1] >= plan.stop_iou

    def click(self, rule: NextClick) -> bool:
        """Add the next click; False if there is no pixel left to click."""
        found = rule(self.target, self.mask, self.clicks)
        if found is not None:
            self.clicks.append(found)
        return found is not None

    @property
    def prompt(self) -> Prompt:
        latest = self.clicks[-1]
        point, label = [[latest.x, latest.y]], [latest.label]
        return Prompt(point, label) if self.before is None else self.before.refine(point, label)

    def add_prediction(self, prediction: MaskPrediction, processor: ImageProcessor) -> None:
        """Add the prediction for the current prompt, P = 1."""
        candidates = prediction.masks[0]
        best = int(prediction.best_index[0])
        self.mask = candidates[best].copy()  # a view would keep the masks of all objects in memory
        ious = [mask_iou(candidate, self.target) for candidate in (candidates if not self.ious else [self.mask])]
        if not self.ious:
            self.candidate, self.oracle_iou = best, max(ious)
            measures = processor.measure(
                prediction.low_res_logits[0, best][None], self.target.shape, AutomaticConfig.stability_score_offset
            )
            self.stability_score = float(measures.stability[0])
        self.ious.append(ious[best if len(ious) > 1 else 0])
        self.predicted_ious.append(float(prediction.scores[0, best]))
        self.before = _without_masks(prediction)

    def result(self) -> ClickedObject:
        return ClickedObject(
            self.index,
            tuple(self.clicks),
            tuple(self.ious),
            tuple(self.predicted_ious),
            self.candidate,
            self.oracle_iou,
            self.stability_score,
            self.mask,
        )


def _without_masks(prediction: MaskPrediction) -> MaskPrediction:
    """A prediction for `refine` without its masks at the size of the image, which take most of its memory."""
    return MaskPrediction(
        np.zeros((*prediction.scores.shape, 0, 0), dtype=np.bool_),
        prediction.scores,
        prediction.low_res_logits,
        prediction.candidates,
        prediction.prompts,
    )


def box_objects(
    predictor: ImagePredictor, embedding: Embedding, annotated: AnnotatedImage, only: Sequence[int] | None = None
) -> Iterator[BoxedObject]:
    """Prompt with the bounding box of each object. As in SAM's evaluation of boxes, there is one candidate.

    Args:
        predictor, embedding, annotated, only: as for `click_objects`.

    Yields:
        The result for each object, in order.
    """
    boxes = annotated.objects.mask_boxes_xyxy
    for indices in _batches(annotated, only):
        masks = predictor.predict(embedding, [Prompt(box_xyxy=boxes[index]) for index in indices]).best()
        for index, mask in zip(indices, masks, strict=True):
            yield BoxedObject(index, mask_iou(mask, annotated.objects.mask(index)), mask.copy())


def _batches(annotated: AnnotatedImage, only: Sequence[int] | None) -> Iterator[list[int]]:
    """Split the objects of an image into batches that bound the memory."""
    indices = visible_objects(annotated) if only is None else list(only)
    height, width = annotated.image.shape[:2]
    together = max(1, min(OBJECTS_AT_ONCE, PIXELS_AT_ONCE // (3 * height * width)))
    for first in range(0, len(indices), together):
        yield indices[first : first + together]
