"""Simulated annotators: they save what people would have saved, with the prompts and the time it would have taken."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from segany.core.embedding import Embedding
from segany.core.errors import DataError, check, check_numbers
from segany.core.instances import Instances
from segany.core.rle import encode_masks, pairwise_mask_iou
from segany.data.item import AnnotatedImage
from segany.engine.brush import Stroke, brush
from segany.evaluate.interactive import ClickedObject, ClickPlan, ClickRule, click_objects, visible_objects
from segany.evaluate.metrics import MAX_CLICKS
from segany.imaging.image import read_image
from segany.predict.image import ImagePredictor
from segany.store import Change, Item, PromptEvent, Store
from segany.store.revisions import RevisionSource

_NAMES = uuid.UUID("6d1c3d5e-6f0b-5d53-9b1a-0d2f3f0c9a77")


@dataclass(frozen=True)
class AnnotatorConfig:
    """How a simulated annotator works, and how long it takes.

    An object takes `find_seconds`, then `click_seconds` a click until the IoU of its mask is `stop_iou`. Where
    `max_clicks` clicks do not get there, the brush does; see `segany.engine.brush`. A stroke takes as long as a click,
    and `width_seconds` more for each diameter of the brush along its length: by the steering law (Accot and Zhai,
    "Beyond Fitts' Law", 1997), time grows with length over width. The number is an assumption.

    A suggested mask takes `find_seconds` to look at. It is accepted if its IoU with an object is `stop_iou`; otherwise
    a click rejects it, and the object is annotated anew.

    Attributes:
        stop_iou: the IoU with which a mask is good enough.
        max_clicks: largest number of clicks on an object.
        rule: the click rule.
        find_seconds: time to find an object, or to look at a suggested mask.
        click_seconds: time of a click.
        width_seconds: time of a stroke for each diameter of the brush along its length.
    """

    stop_iou: float = 0.9
    max_clicks: int = MAX_CLICKS
    rule: ClickRule = "sam"
    find_seconds: float = 1.0
    click_seconds: float = 1.5
    width_seconds: float = 0.2

    def __post_init__(self) -> None:
        check_numbers(self)
        check(0 < self.stop_iou <= 1, f"stop_iou must lie in 0..1, got {self.stop_iou}.")
        for name in ("find_seconds", "click_seconds", "width_seconds"):
            check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}.")
        _ = self.plan

    @property
    def plan(self) -> ClickPlan:
        return ClickPlan(self.rule, self.max_clicks, self.stop_iou)

    def stroke_seconds(self, stroke: Stroke) -> float:
        """The time of a stroke."""
        return self.click_seconds + self.width_seconds * stroke.widths


@dataclass(frozen=True)
class Effort:
    """What the annotation of an image took.

    Attributes:
        masks: objects with a mask afterwards.
        accepted: those of them whose mask was suggested.
        rejected: suggested masks that were not good enough.
        clicks: clicks on objects; not those that reject a mask.
        strokes: strokes of the brush.
        seconds: the time for all of it.
    """

    masks: int = 0
    accepted: int = 0
    rejected: int = 0
    clicks: int = 0
    strokes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.masks + other.masks,
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.clicks + other.clicks,
            self.strokes + other.strokes,
            self.seconds + other.seconds,
        )

    @property
    def drawn(self) -> int:
        """Masks that were made by clicks and strokes."""
        return self.masks - self.accepted


class SimulatedAnnotator:
    """An annotator of the images of a project that knows the masks of their objects.

    All ids are made from those of the item, so that annotating an item again, such as after a crash, saves nothing
    twice.
    """

    def __init__(
        self,
        store: Store,
        predictor: ImagePredictor,
        config: AnnotatorConfig | None = None,
        *,
        author: str = "simulated",
        model_version: str | None = None,
    ) -> None:
        """Prepare an annotator.

        Args:
            store: the project.
            predictor: with the model that helps.
            config: how the annotator works.
            author: the name that revisions get.
            model_version: the name of the model in revisions and prompt events; by default that of the model.
        """
        self.store, self.predictor, self.config = store, predictor, config or AnnotatorConfig()
        self.author, self.model_version = author, model_version or predictor.model.name

    def annotate(
        self,
        item: Item,
        objects: Instances,
        embedding: Embedding | None = None,
        suggested: Instances | None = None,
    ) -> Effort:
        """Annotate the objects of an item, save their masks, and set the item to "done".

        An accepted mask keeps the source "auto", as in the page; other masks get "assisted".

        Args:
            item: the item.
            objects: the objects, of the item's size. Those without a pixel are left out.
            embedding: embedding of the image by the predictor's model, if there is one already.
            suggested: masks that are shown from the start.

        Returns:
            What it took.

        Raises:
            DataError: the objects or the suggested masks are of another size than the item.
            ImageError: the image cannot be read.
            MissingExtraError: SciPy is not installed.
        """
        for what, given in (("objects", objects), ("suggested masks", suggested)):
            if given is not None and given.size_hw != item.size_hw:
                raise DataError(f"The {what} are {given.size_hw} high and wide, but {item.name!r} is {item.size_hw}.")
        image = read_image(self.store.items.file(item.id))
        annotated = AnnotatedImage(item.name, image, objects)
        visible = visible_objects(annotated)
        shown = Instances.empty(item.size_hw) if suggested is None else suggested
        accepted = self._accepted(shown, annotated.objects, visible)
        left = [index for index in visible if index not in accepted]

        config, changes = self.config, []
        rejected = len(shown) - len(accepted)
        effort = Effort(
            accepted=len(accepted),
            rejected=rejected,
            seconds=len(shown) * config.find_seconds + rejected * config.click_seconds,
        )
        for index, number in accepted.items():
            changes.append(self._accept(item, index, number, shown))
        if left:
            embedding = self.predictor.embed(image) if embedding is None else embedding
            for clicked in click_objects(self.predictor, embedding, annotated, config.plan, left):
                change, drawn = self._draw(item, clicked, annotated)
                changes.append(change)
                effort += drawn
        self._save(item, changes, effort.seconds)
        return effort + Effort(masks=len(changes))

    def _accepted(self, suggested: Instances, objects: Instances, visible: Sequence[int]) -> dict[int, int]:
        """The objects that have a good suggested mask, and which one: no mask is accepted twice."""
        ious = pairwise_mask_iou(suggested.rles, objects.rles)
        accepted: dict[int, int] = {}
        for number in range(len(suggested)):
            good = [index for index in visible if index not in accepted and ious[number, index] >= self.config.stop_iou]
            if good:
                accepted[max(good, key=ious[number].__getitem__)] = number
        return accepted

    def _accept(self, item: Item, index: int, number: int, suggested: Instances) -> Change:
        score = float(suggested.scores[number])
        payload = {"suggestions": [{"index": number, "score": None if math.isnan(score) else score}]}
        event = PromptEvent(_id(item, index, "accept"), 0, "accept", payload, self.model_version)
        return self._change(item, index, suggested.rle_counts[number], "auto", self.config.find_seconds, [event])

    def _draw(self, item: Item, clicked: ClickedObject, annotated: AnnotatedImage) -> tuple[Change, Effort]:
        config, index = self.config, clicked.index
        mask, strokes = brush(clicked.mask, annotated.objects.mask(index), config.stop_iou)
        seconds = (
            config.find_seconds
            + len(clicked.clicks) * config.click_seconds
            + sum(config.stroke_seconds(stroke) for stroke in strokes)
        )
        events = self._events(item, clicked, strokes)
        change = self._change(item, index, encode_masks(mask)[0]["counts"], "assisted", seconds, events)
        return change, Effort(clicks=len(clicked.clicks), strokes=len(strokes), seconds=seconds)

    def _change(
        self, item: Item, index: int, counts: str, source: RevisionSource, seconds: float, events: Sequence[PromptEvent]
    ) -> Change:
        return Change(
            object_id=_id(item, index, "object"),
            revision_id=_id(item, index, "revision"),
            base_id=None,
            counts=counts,
            z=float(index),
            source=source,
            active_ms=round(1000 * seconds),
            model_version=self.model_version,
            prompt_events=tuple(events),
        )

    def _events(self, item: Item, clicked: ClickedObject, strokes: Sequence[Stroke]) -> list[PromptEvent]:
        """What the page would have sent."""
        index = clicked.index
        events: list[PromptEvent] = []
        points = [[click.x, click.y] for click in clicked.clicks]
        labels = [click.label for click in clicked.clicks]
        for count in range(1, len(points) + 1):
            before = None
            if count > 1:
                candidate = clicked.candidate if count == 2 else 0
                before = {"event": _id(item, index, f"click {count - 1}"), "candidate": candidate}
            payload = {
                "points": points[:count], "labels": labels[:count], "box": None, "multimask": count == 1,
                "refine": before,
            }  # fmt: skip
            candidate = clicked.candidate if count == 1 else 0
            event_id = _id(item, index, f"click {count}")
            events.append(PromptEvent(event_id, len(events), "point", payload, self.model_version, candidate))
        accept = {"event": events[-1].id}
        event_id = _id(item, index, "accept")
        events.append(PromptEvent(event_id, len(events), "accept", accept, self.model_version, events[-1].candidate))
        for number, stroke in enumerate(strokes):
            size = {"area": stroke.area, "size": stroke.width, "shape": "round", "value": stroke.adds}
            events.append(PromptEvent(_id(item, index, f"stroke {number}"), len(events), "brush", size))
        return events

    def _save(self, item: Item, changes: list[Change], seconds: float) -> None:
        """Save the changes at once. The first one also has the time for rejected masks, as in the page."""
        if changes:
            unsaved_ms = max(0, round(1000 * seconds) - sum(change.active_ms for change in changes))
            changes[0] = replace(changes[0], active_ms=changes[0].active_ms + unsaved_ms)
            self.store.annotations.save(item.id, str(uuid.uuid5(_NAMES, item.id)), changes, self.author)
        self.store.items.set_state(item.id, "done")


def _id(item: Item, index: int, what: str) -> str:
    return str(uuid.uuid5(_NAMES, f"{item.id} {index} {what}"))
