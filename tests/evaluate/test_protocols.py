from __future__ import annotations

import numpy as np
import pytest
from tests.evaluate.painting import SIDE, PaintingModel, blocks
from tests.models_for_tests import loaded, small_sam

from segany import AutomaticConfig, AutomaticMaskGenerator, ConfigError, ImagePredictor
from segany.core.instances import Instances
from segany.core.progress import ProgressEvent
from segany.data.item import AnnotatedImage
from segany.evaluate import interactive
from segany.evaluate.clicks import Click
from segany.evaluate.interactive import ClickPlan, box_objects, click_objects, visible_objects
from segany.evaluate.protocols import (
    AutomaticProtocol,
    BoxProtocol,
    ClickCountProtocol,
    ClickProtocol,
    ImageSubject,
    proposals_config,
)

ALL = 40 * SIDE
"""Pixels of `blocks`, of which the objects have 200 and 36."""


def subject(annotated: AnnotatedImage | None = None, model: PaintingModel | None = None) -> ImageSubject:
    return ImageSubject(ImagePredictor(model or PaintingModel()), blocks() if annotated is None else annotated)


def test_clicks_lead_to_the_masks_that_were_computed_by_hand():
    one = subject()
    clicked = list(click_objects(one.predictor, one.embedding, one.annotated, ClickPlan()))
    # First in the middle: the model believes most in everything, although the right mask is among its three. Then
    # in the middle of the ground, 20 pixels from the upper border and the right one (of the smaller
    # object, from the left one), which takes the ground away; then on the other object.
    assert clicked[0].clicks == (Click(9, 9, 1), Click(44, 19, 0), Click(42, 22, 0))
    assert clicked[0].ious == (200 / ALL, 200 / 236, 1)
    assert clicked[1].clicks == (Click(42, 22, 1), Click(19, 19, 0), Click(9, 9, 0))
    assert clicked[1].ious == (36 / ALL, 36 / 236, 1)
    assert [one.oracle_iou for one in clicked] == [1, 1]
    assert np.array_equal(clicked[1].mask, one.annotated.instances.mask(1))


def test_mean_iou_after_clicks():
    protocol = ClickProtocol()
    records = protocol.measure(subject())
    assert records[0]["ious"] == [200 / ALL, 200 / 236, 1, 1, 1]  # perfect before the last click, it stays so
    numbers = protocol.summarize(records)
    assert numbers == {
        "objects": 2,
        "miou_1": pytest.approx((200 + 36) / 2 / ALL, abs=1e-15),
        "miou_3": 1,
        "miou_5": 1,
        "oracle_miou_1": 1,
    }
    assert protocol.curve(records)[1] == pytest.approx((200 + 36) / 236 / 2, abs=1e-15)


def test_number_of_clicks():
    protocol = ClickCountProtocol()
    records = protocol.measure(subject())
    # 200/236 is 0.847: enough for 80, and not for 85.
    assert [len(record["ious"]) for record in records] == [3, 3]
    assert protocol.summarize(records) == {
        "objects": 2, "noc_80": 2.5, "noc_80_failures": 0, "noc_85": 3, "noc_85_failures": 0, "noc_90": 3,
        "noc_90_failures": 0,
    }  # fmt: skip
    assert protocol.curve(records, 80)[:4] == [0, 0.5, 1, 1]


def test_number_of_clicks_stops_at_the_best_quality_and_gives_up_in_time():
    assert [len(one["ious"]) for one in ClickCountProtocol((80,)).measure(subject())] == [2, 3]
    given_up = ClickCountProtocol((80,), max_clicks=2)
    records = given_up.measure(subject())
    assert given_up.summarize(records) == {"objects": 2, "noc_80": 2, "noc_80_failures": 0.5}


def test_boxes_go_around_the_masks():
    corner = np.zeros((40, SIDE), dtype=bool)
    corner[10:20, 10:20] = True
    corner[10:15, 10:15] = False
    annotated = AnnotatedImage("corner", np.zeros((40, SIDE, 3), np.uint8), Instances.from_masks(corner))
    protocol = BoxProtocol()
    assert protocol.summarize(protocol.measure(subject(annotated))) == {"objects": 1, "box_miou": 0.75}


def test_objects_without_pixels_are_left_out():
    one = subject(blocks(empty=True))
    assert visible_objects(one.annotated) == [0, 1]
    assert one.left_out == 1
    assert [len(protocol.measure(one)) for protocol in (ClickProtocol(), BoxProtocol(), ClickCountProtocol())] == [
        2
    ] * 3


def test_images_without_objects_need_no_embedding():
    model = PaintingModel()
    bare = AnnotatedImage("bare", np.zeros((40, SIDE, 3), np.uint8), Instances.empty((40, SIDE)))
    for protocol in (ClickProtocol(), BoxProtocol(), ClickCountProtocol()):
        records = protocol.measure(subject(bare, model))
        assert records == []
        assert set(protocol.summarize(records).values()) == {0, None}
    assert model.embedded == 0


def test_an_image_is_embedded_once_and_its_objects_are_prompted_together():
    model = PaintingModel()
    one = subject(model=model)
    for protocol in (ClickProtocol(), BoxProtocol()):
        protocol.measure(one)
    assert model.embedded == 1
    assert model.prompted == [2, 2, 2, 2]  # three clicks and a box, each on both objects


def test_batches_are_as_small_as_memory_wants(monkeypatch):
    whole = ClickProtocol().measure(subject())
    monkeypatch.setattr(interactive, "PIXELS_AT_ONCE", 1)
    model = PaintingModel()
    assert ClickProtocol().measure(subject(model=model)) == whole
    assert set(model.prompted) == {1}


def test_some_objects_alone():
    one = subject()
    assert [item.index for item in box_objects(one.predictor, one.embedding, one.annotated, [1])] == [1]


def test_masks_that_the_model_finds_have_a_recall_of_one():
    model = loaded(small_sam())
    image = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    config = AutomaticConfig(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    found = AutomaticMaskGenerator(model, config).generate(image)
    assert len(found) > 2
    protocol = AutomaticProtocol(config)
    told: list[ProgressEvent] = []
    seen = ImageSubject(ImagePredictor(model), AnnotatedImage("own", image, found))
    records = protocol.measure(seen, told.append)
    numbers = protocol.summarize(records)
    assert numbers["objects"] == numbers["masks_per_image"] == len(found)
    assert (numbers["mask_ar_1000"], numbers["box_ar_1000"]) == (1, 1)
    assert protocol.curve(records, 1000)[0] == (0.5, 1)
    assert told[-1].done == told[-1].total
    # With another image's masks, nothing is sure any more.
    turned = Instances.from_masks(seen.annotated.instances.mask(0)[::-1, ::-1] ^ True)
    other = protocol.summarize(protocol.measure(ImageSubject(seen.predictor, AnnotatedImage("other", image, turned))))
    assert other["mask_ar_1000"] is not None
    assert other["mask_ar_1000"] < 1


def test_annotated_areas_and_boxes_count() -> None:
    """As in COCO's and LVIS's evaluators: pixels of the mask and the box around them are something else."""
    model = loaded(small_sam())
    image = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    config = AutomaticConfig(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    found = AutomaticMaskGenerator(model, config).generate(image)
    protocol = AutomaticProtocol(config)
    numbers = []
    for boxes, area in ((found.mask_boxes_xyxy, np.nan), (found.mask_boxes_xyxy + 1000, 200_000.0)):
        objects = Instances.from_rles(
            found.rles, found.size_hw, boxes_xyxy=boxes, columns={"annotated_area": np.full(len(found), area)}
        )
        seen = ImageSubject(ImagePredictor(model), AnnotatedImage("own", image, objects))
        numbers.append(protocol.summarize(protocol.measure(seen)))
    by_mask, annotated = numbers
    assert (by_mask["mask_ar_1000"], by_mask["box_ar_1000"], by_mask["mask_ar_1000_large"]) == (1, 1, None)
    assert (annotated["mask_ar_1000"], annotated["box_ar_1000"], annotated["mask_ar_1000_large"]) == (1, 0, 1)


def test_the_papers_proposals_are_denser_and_overlap_more():
    assert (proposals_config().points_per_side, proposals_config().box_nms_thresh) == (64, 0.9)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ClickProtocol(()),
        lambda: ClickProtocol((3, 1)),
        lambda: ClickProtocol((0, 1)),
        lambda: ClickProtocol(rule="nearest"),  # type: ignore[arg-type]
        lambda: ClickCountProtocol(()),
        lambda: ClickCountProtocol((0,)),
        lambda: ClickCountProtocol((101,)),
        lambda: ClickCountProtocol(max_clicks=0),
        lambda: ClickPlan(stop_iou=80),
    ],
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(ConfigError):
        build()
