"""Simulated annotators: masks, prompts and times that they save."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluate.painting import PaintingModel, blocks

from segany import ConfigError, DataError, ImagePredictor
from segany.core.instances import Instances
from segany.core.rle import pairwise_mask_iou
from segany.data.item import AnnotatedImage
from segany.engine.annotator import AnnotatorConfig, Effort, SimulatedAnnotator
from segany.store import Item, NewItem, Store

BLOCKS = blocks()
LARGE, SMALL = 0, 1
"""Objects of `BLOCKS`. From a click in the middle, everything; the second click takes the ground, and the third one
the other block."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project") as opened:
        yield opened


def add(store: Store, annotated: AnnotatedImage = BLOCKS) -> Item:
    file = io.BytesIO()
    Image.fromarray(annotated.image).save(file, "PNG")
    height, width = annotated.image.shape[:2]
    data = file.getvalue()
    sha256 = store.blobs.put(data, "image/png", width, height)
    new = NewItem(annotated.name, sha256, width, height, "image/png", len(data))
    return store.items.get(store.items.add([new])[0])


def annotator(store: Store, model: PaintingModel | None = None, **settings: object) -> SimulatedAnnotator:
    predictor = ImagePredictor(model or PaintingModel())
    return SimulatedAnnotator(store, predictor, AnnotatorConfig(**settings), author="ada", model_version="round 1")


def ious(store: Store, item: Item) -> list[float]:
    return pairwise_mask_iou(store.annotations.instances(item.id).rles, BLOCKS.objects.rles).max(axis=1).tolist()


def test_objects_are_clicked_on_until_their_masks_are_good(store: Store) -> None:
    item = add(store)
    effort = annotator(store).annotate(item, BLOCKS.objects)
    # Two objects with three clicks each: see test_protocols. 2 x (1 s + 3 x 1.5 s).
    assert effort == Effort(masks=2, clicks=6, seconds=11)
    assert effort.drawn == 2
    assert ious(store, item) == [1, 1]
    assert store.items.get(item.id).state == "done"
    states = store.annotations.objects(item.id)
    assert [(one.source, one.author, one.model_version) for one in states] == [("assisted", "ada", "round 1")] * 2


def test_prompts_are_saved_as_the_page_does(store: Store) -> None:
    item = add(store)
    annotator(store).annotate(item, BLOCKS.objects)
    [revision] = store.annotations.history(item.id, store.annotations.objects(item.id)[LARGE].id)
    assert revision.active_ms == 5500
    events = revision.prompt_events
    assert [event.kind for event in events] == ["point", "point", "point", "accept"]
    first, second, third, accept = (event.payload for event in events)
    assert first == {"points": [[9, 9]], "labels": [1], "box": None, "multimask": True, "refine": None}
    assert (second["points"], second["labels"]) == ([[9, 9], [44, 19]], [1, 0])
    # The model believes most in its second candidate.
    assert [event.candidate for event in events] == [1, 0, 0, 0]
    assert second["refine"] == {"event": events[0].id, "candidate": 1}
    assert third["refine"] == {"event": events[1].id, "candidate": 0}
    assert accept == {"event": events[2].id}


def test_the_brush_does_what_clicks_cannot(store: Store) -> None:
    item = add(store)
    effort = annotator(store, max_clicks=2, width_seconds=0.5).annotate(item, BLOCKS.objects)
    # After two clicks, the masks are both blocks, so that the other block is to be erased: 6 x 6 pixels with a brush
    # of 6, which is one width long; 10 x 20 pixels with a brush of 10, two widths.
    assert (effort.clicks, effort.strokes) == (4, 2)
    assert effort.seconds == pytest.approx(2 * (1 + 3 + 1.5) + 0.5 * (1 + 2))
    assert ious(store, item) == [1, 1]
    [revision] = store.annotations.history(item.id, store.annotations.objects(item.id)[LARGE].id)
    assert [event.kind for event in revision.prompt_events] == ["point", "point", "accept", "brush"]
    assert revision.prompt_events[-1].payload == {"area": 36, "size": 6, "shape": "round", "value": False}


def test_good_suggested_masks_are_accepted_and_bad_ones_rejected(store: Store) -> None:
    item = add(store)
    bad = np.zeros((40, 64), dtype=bool)
    bad[30:38, 2:60] = True
    masks = [BLOCKS.objects.mask(SMALL), BLOCKS.objects.mask(SMALL), bad]
    suggested = Instances.from_masks(np.stack(masks), scores=[0.9, 0.8, 0.7], sources="automatic")
    effort = annotator(store).annotate(item, BLOCKS.objects, suggested=suggested)
    # Three masks are looked at, and two rejected: the second one of the same object, too. One object is drawn.
    assert effort == Effort(masks=2, accepted=1, rejected=2, clicks=3, seconds=3 * 1 + 2 * 1.5 + 5.5)
    large, small = store.annotations.objects(item.id)
    assert (large.source, small.source) == ("assisted", "auto")
    [revision] = store.annotations.history(item.id, small.id)
    assert [event.kind for event in revision.prompt_events] == ["accept"]
    assert revision.prompt_events[0].payload == {"suggestions": [{"index": 0, "score": pytest.approx(0.9)}]}
    saved_ms = sum(store.annotations.history(item.id, one.id)[0].active_ms for one in (large, small))
    assert saved_ms == 1000 * effort.seconds


def test_an_image_without_objects_left_needs_no_embedding(store: Store) -> None:
    item, model = add(store), PaintingModel()
    effort = annotator(store, model).annotate(item, BLOCKS.objects, suggested=BLOCKS.objects)
    assert effort == Effort(masks=2, accepted=2, seconds=2)
    assert model.embedded == 0


def test_a_known_embedding_is_used(store: Store) -> None:
    item, model = add(store), PaintingModel()
    worker = annotator(store, model)
    embedding = worker.predictor.embed(BLOCKS.image)
    worker.annotate(item, BLOCKS.objects, embedding)
    assert model.embedded == 1


def test_annotating_again_saves_nothing_twice(store: Store) -> None:
    item = add(store)
    annotator(store).annotate(item, BLOCKS.objects)
    before = store.annotations.objects(item.id)
    store.items.set_state(item.id, "in_progress")  # as if the process had been killed before it said "done"
    annotator(store).annotate(item, BLOCKS.objects)
    assert store.annotations.objects(item.id) == before
    assert store.items.get(item.id).state == "done"
    assert [len(store.annotations.history(item.id, one.id)) for one in before] == [1, 1]


def test_masks_of_another_size_are_refused(store: Store) -> None:
    item = add(store)
    with pytest.raises(DataError, match="objects are"):
        annotator(store).annotate(item, Instances.empty((3, 4)))
    with pytest.raises(DataError, match="suggested masks are"):
        annotator(store).annotate(item, BLOCKS.objects, suggested=Instances.empty((3, 4)))
    assert store.items.get(item.id).state == "todo"


@pytest.mark.parametrize(
    "settings", [{"stop_iou": 0}, {"stop_iou": 1.1}, {"max_clicks": 0}, {"click_seconds": -1}, {"rule": "other"}]
)
def test_configs_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(AnnotatorConfig(), **settings)


def test_effort_adds_up() -> None:
    one = Effort(2, 1, 1, 3, 1, 4.5)
    assert one + one == Effort(4, 2, 2, 6, 2, 9)
    assert one + Effort() == one
