"""Evaluation protocols for images: clicks, boxes, number of clicks, and average recall of automatic masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segany.core.embedding import Embedding
from segany.core.errors import check
from segany.core.instances import Instances
from segany.core.progress import ProgressCallback
from segany.core.rle import pairwise_mask_iou
from segany.data.item import AnnotatedImage
from segany.evaluate.interactive import ClickedObject, ClickPlan, ClickRule, box_objects, click_objects, visible_objects
from segany.evaluate.metrics import MAX_CLICKS, clicks_needed, count_clicks, mean
from segany.evaluate.protocol import Numbers, Protocol, Record
from segany.evaluate.recall import AREAS, IOU_THRESHOLDS, LIMITS, RecallCounts, count_found, pairwise_box_iou
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
from segany.predict.image import ImagePredictor


@dataclass(frozen=True, eq=False)
class ImageSubject:
    """An image that protocols measure. It is embedded once, when the first protocol needs the embedding.

    Attributes:
        predictor: the predictor.
        annotated: the image and its objects.
        known: embedding of the image, if it has been computed before.
    """

    predictor: ImagePredictor
    annotated: AnnotatedImage
    known: Embedding | None = None

    @cached_property
    def embedding(self) -> Embedding:
        return self.predictor.embed(self.annotated.image) if self.known is None else self.known

    @cached_property
    def objects(self) -> list[int]:
        """The indices of the visible objects."""
        return visible_objects(self.annotated)

    @property
    def left_out(self) -> int:
        """Number of objects without a pixel, which cannot be prompted or found."""
        return len(self.annotated.objects) - len(self.objects)


@dataclass(frozen=True)
class ClickProtocol(Protocol):
    """Mean IoU after 1, 3 and 5 clicks, and oracle mean IoU of three candidates after one (SAM, sections 7.1, D.1).

    Attributes:
        counts: numbers of clicks, in ascending order.
        rule: the click rule.
    """

    counts: tuple[int, ...] = (1, 3, 5)
    rule: ClickRule = "sam"
    name: ClassVar[str] = "clicks"

    def __post_init__(self) -> None:
        check(len(self.counts) > 0, "counts is empty. Give at least one number of clicks.")
        check(
            list(self.counts) == sorted(set(self.counts)) and self.counts[0] >= 1,
            f"counts must be different numbers from 1 on, in ascending order, got {self.counts}.",
        )
        _ = self.plan

    @property
    def plan(self) -> ClickPlan:
        return ClickPlan(self.rule, self.counts[-1])

    def measure(self, subject: ImageSubject, progress: ProgressCallback | None = None) -> list[Record]:  # noqa: ARG002
        counts = range(1, self.counts[-1] + 1)
        return [
            {**record, "ious": [clicked.iou_after(count) for count in counts], "oracle_iou": clicked.oracle_iou}
            for clicked, record in _clicked(subject, self.plan)
        ]

    def summarize(self, records: Sequence[Record]) -> Numbers:
        numbers: Numbers = {"objects": len(records)}
        for count in self.counts:
            numbers[f"miou_{count}"] = mean([one["ious"][count - 1] for one in records])
        numbers["oracle_miou_1"] = mean([one["oracle_iou"] for one in records])
        return numbers

    def worst(self, record: Record) -> float | None:
        return float(record["ious"][-1])

    def curve(self, records: Sequence[Record]) -> list[float]:
        """Mean IoU after each click."""
        return [float(value) for value in np.mean([one["ious"] for one in records], axis=0)] if records else []


def _clicked(subject: ImageSubject, plan: ClickPlan) -> Iterator[tuple[ClickedObject, Record]]:
    """Yield the result of clicks on each object of an image, and the common part of its record."""
    if subject.objects:  # an image without objects needs no embedding
        for clicked in click_objects(subject.predictor, subject.embedding, subject.annotated, plan):
            clicks = [[click.x, click.y, click.label] for click in clicked.clicks]
            yield clicked, {"object": clicked.index, "clicks": clicks}


@dataclass(frozen=True)
class BoxProtocol(Protocol):
    """Mean IoU of the masks predicted for the bounding boxes of objects."""

    name: ClassVar[str] = "box"

    def measure(self, subject: ImageSubject, progress: ProgressCallback | None = None) -> list[Record]:  # noqa: ARG002
        if not subject.objects:
            return []  # an image without objects needs no embedding
        boxed = box_objects(subject.predictor, subject.embedding, subject.annotated)
        return [{"object": one.index, "iou": one.iou} for one in boxed]

    def summarize(self, records: Sequence[Record]) -> Numbers:
        return {"objects": len(records), "box_miou": mean([one["iou"] for one in records])}

    def worst(self, record: Record) -> float | None:
        return float(record["iou"])


@dataclass(frozen=True)
class ClickCountProtocol(Protocol):
    """Number of clicks to reach an IoU: NoC@80, @85 and @90, with RITM's simulated clicks (RITM, section 5.1).

    Attributes:
        qualities: the IoUs to reach, in percent.
        max_clicks: largest number of clicks on an object.
        rule: the click rule.
    """

    qualities: tuple[int, ...] = (80, 85, 90)
    max_clicks: int = MAX_CLICKS
    rule: ClickRule = "ritm"
    name: ClassVar[str] = "noc"

    def __post_init__(self) -> None:
        check(len(self.qualities) > 0, "qualities is empty. Give at least one IoU in percent.")
        check(all(0 < one <= 100 for one in self.qualities), f"qualities must lie in 1..100, got {self.qualities}.")
        _ = self.plan

    @property
    def plan(self) -> ClickPlan:
        return ClickPlan(self.rule, self.max_clicks, max(self.qualities) / 100)

    def measure(self, subject: ImageSubject, progress: ProgressCallback | None = None) -> list[Record]:  # noqa: ARG002
        return [{**record, "ious": list(clicked.ious)} for clicked, record in _clicked(subject, self.plan)]

    def summarize(self, records: Sequence[Record]) -> Numbers:
        numbers: Numbers = {"objects": len(records)}
        for quality in self.qualities:
            count = count_clicks([one["ious"] for one in records], quality / 100, self.max_clicks)
            numbers[f"noc_{quality}"] = None if count is None else count.mean
            numbers[f"noc_{quality}_failures"] = None if count is None else count.failures
        return numbers

    def worst(self, record: Record) -> float | None:
        return float(record["ious"][-1])

    def curve(self, records: Sequence[Record], quality: int) -> list[float]:
        """The share of objects that have reached the IoU `quality`, in percent, after each number of clicks."""
        needed = [clicks_needed(one["ious"], quality / 100) for one in records]
        reached = [sum(one is not None and one <= count for one in needed) for count in range(1, self.max_clicks + 1)]
        return [count / len(records) for count in reached] if records else []


def proposals_config() -> AutomaticConfig:
    """The config of SAM's object proposals (SAM, section D.3): 64 x 64 points, and NMS with a box IoU threshold of 0.9.

    It takes four times as long as the default config.
    """
    return AutomaticConfig(points_per_side=64, box_nms_thresh=0.9)


@dataclass(frozen=True)
class AutomaticProtocol(Protocol):
    """Average recall AR@10, AR@100 and AR@1000 of automatic masks and of their boxes (SAM, sections 7.3, D.3).

    Proposals are ranked by the mean of predicted IoU and stability score, as in the paper, and all objects are one
    category. Areas and boxes of objects are the annotated ones, if there are any, as in the evaluators of COCO and
    LVIS.

    Attributes:
        config: config of the automatic mask generator; the paper's is `proposals_config()`.
    """

    config: AutomaticConfig = field(default_factory=AutomaticConfig)
    name: ClassVar[str] = "automatic"
    version: ClassVar[int] = 2

    def measure(self, subject: ImageSubject, progress: ProgressCallback | None = None) -> list[Record]:
        annotated = subject.annotated
        generator = AutomaticMaskGenerator(
            subject.predictor.model,  # type: ignore[arg-type]
            self.config,
            max_pixels=subject.predictor.max_pixels,
        )
        source = subject.embedding if self.config.crop_n_layers == 0 else annotated.image
        found = generator.generate(source, progress=progress)
        quality = found.predicted_iou.astype(np.float64) + found.stability_score
        proposals = found[np.argsort(-quality, kind="stable")]
        objects = annotated.objects[subject.objects]
        areas = _annotated_areas(objects)
        record: Record = {"masks": len(proposals)}
        overlaps = {
            "mask": pairwise_mask_iou(proposals.rles, objects.rles),
            "box": pairwise_box_iou(proposals.mask_boxes_xyxy, objects.boxes_xyxy),
        }
        for kind, ious in overlaps.items():
            counts = count_found(ious, areas)
            record[kind] = {"objects": counts.objects.tolist(), "found": counts.found.tolist()}
        return [record]

    def summarize(self, records: Sequence[Record]) -> Numbers:
        numbers: Numbers = {
            "objects": sum(one["mask"]["objects"][0] for one in records),
            "masks_per_image": mean([one["masks"] for one in records]),
        }
        for kind in ("mask", "box"):
            counts = _pooled(records, kind)
            for limit in LIMITS:
                numbers[f"{kind}_ar_{limit}"] = counts.average_recall(limit)
            for area in list(AREAS)[1:]:
                numbers[f"{kind}_ar_{LIMITS[-1]}_{area}"] = counts.average_recall(LIMITS[-1], area)
        return numbers

    def curve(self, records: Sequence[Record], limit: int) -> list[tuple[float, float]]:
        """IoU thresholds, and recall of the first `limit` masks at each."""
        counts = _pooled(records, "mask")
        if not counts.objects[0]:
            return []
        shares = counts.found[0, LIMITS.index(limit)] / counts.objects[0]
        return [(float(iou), float(share)) for iou, share in zip(IOU_THRESHOLDS, shares, strict=True)]


def _annotated_areas(objects: Instances) -> npt.NDArray[np.float64]:
    """Annotated areas, float64 [N]; the number of mask pixels where an annotation has none."""
    annotated = objects.columns.get("annotated_area", np.full(len(objects), np.nan)).astype(np.float64)
    return np.where(np.isnan(annotated), objects.areas, annotated)


def _pooled(records: Sequence[Record], kind: str) -> RecallCounts:
    """The sum of the recall counts of all images."""
    counts = RecallCounts.none()
    for record in records:
        found: Mapping[str, Any] = record[kind]
        counts += RecallCounts(np.array(found["objects"], dtype=np.int64), np.array(found["found"], dtype=np.int64))
    return counts
