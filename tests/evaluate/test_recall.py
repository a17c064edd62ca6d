from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segany.core.errors import ConfigError
from segany.core.rle import Rle, coco_bbox_xywh, encode_masks, pairwise_mask_iou
from segany.evaluate.recall import AREAS, IOU_THRESHOLDS, LIMITS, RecallCounts, count_found, pairwise_box_iou


def test_recall_is_the_share_of_objects_found_at_each_threshold():
    # The first proposal takes object 0 at an IoU of 0.72: at the thresholds 0.5 to 0.7, 5 of 10. The second takes
    # object 1 at all thresholds. Object 2 is overlapped by 0.49 only.
    overlaps = np.array([[0.72, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.49]])
    counts = count_found(overlaps, [2000, 2000, 2000])
    assert counts.average_recall(10) == pytest.approx((5 + 10) / 30, abs=1e-15)
    assert counts.average_recall(1000, "medium") == counts.average_recall(10)
    assert counts.average_recall(10, "small") is None


def test_only_so_many_proposals_count():
    overlaps = np.zeros((12, 1))
    overlaps[11] = 0.99
    counts = count_found(overlaps, [2000])
    assert counts.average_recall(10) == 0
    assert counts.average_recall(100) == 1


def test_a_better_proposal_takes_what_it_overlaps_most_and_leaves_the_rest():
    # The first prefers object 1; the second could have only that one, too, and finds it taken.
    overlaps = np.array([[0.6, 0.8], [0.2, 0.97]])
    counts = count_found(overlaps, [5, 5])
    found = counts.found[0, 0].tolist()
    # Below 0.85 the first has object 1. From there on it has none, and the second has it.
    assert found == [1] * 10


def test_objects_on_the_edge_of_two_sizes_belong_to_both():
    counts = count_found(np.ones((1, 1)), [32**2])
    assert counts.objects.tolist() == [1, 1, 1, 0]


def test_counts_of_images_are_pooled():
    one, other = count_found(np.ones((1, 1)), [50]), count_found(np.zeros((1, 3)), [50, 50, 50])
    assert (one + other + RecallCounts.none()).average_recall(10) == 0.25


def test_images_without_proposals_or_objects_count():
    assert count_found(np.zeros((0, 2)), [5, 5]).average_recall(10) == 0
    assert count_found(np.zeros((4, 0)), []).average_recall(10) is None


def test_an_unknown_limit_or_size_is_refused():
    with pytest.raises(ConfigError, match="limit"):
        RecallCounts.none().average_recall(50)
    with pytest.raises(ConfigError, match="area"):
        RecallCounts.none().average_recall(10, "huge")


def random_masks(rng: np.random.Generator, count: int) -> list[Rle]:
    masks = np.zeros((count, 150, 150), dtype=bool)
    for mask in masks:
        left, top = rng.integers(0, 60, 2)
        width, height = (rng.random(2) ** 2 * 147).astype(int) + 3  # of all three sizes
        mask[top : top + height, left : left + width] = True
    return encode_masks(masks)


def shaken(rng: np.random.Generator, masks: list[Rle]) -> list[Rle]:
    """Boxes near those of some masks."""
    found = np.zeros((len(masks), 150, 150), dtype=bool)
    for mask, near in zip(found, masks, strict=True):
        x, y, w, h = (
            int(value + shift) for value, shift in zip(coco_bbox_xywh(near), rng.integers(-3, 4, 4), strict=True)
        )
        mask[max(0, y) : max(0, y) + max(1, h), max(0, x) : max(0, x) + max(1, w)] = True
    return encode_masks(found)


def xyxy(boxes_xywh: object) -> np.ndarray:
    boxes = np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_recall_is_what_coco_says(kind):
    rng = np.random.default_rng(7)
    images = []
    for _ in range(4):
        objects = random_masks(rng, 14)
        images.append((objects, [*shaken(rng, objects), *random_masks(rng, 10), *shaken(rng, objects[:6])]))
    counts = RecallCounts.none()
    annotations, detections = [], []
    for number, (objects, proposals) in enumerate(images, start=1):
        # As in COCO's files, areas and boxes are those of polygons, and not of the pixels that these become.
        boxes = np.array([coco_bbox_xywh(mask) for mask in objects]) + rng.uniform(-4, 4, (len(objects), 4)).round(2)
        boxes[:, 2:] = boxes[:, 2:].clip(1)
        areas = [
            int(w * h) * factor
            for (_, _, w, h), factor in zip(map(coco_bbox_xywh, objects), [0.8, 1.3] * 7, strict=True)
        ]
        if kind == "segm":
            overlaps = pairwise_mask_iou(proposals, objects)
        else:
            overlaps = pairwise_box_iou(xyxy([coco_bbox_xywh(mask) for mask in proposals]), xyxy(boxes))
        counts += count_found(overlaps, areas)
        for mask, area, box in zip(objects, areas, boxes.tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": area,
                "segmentation": mask, "bbox": box,
            })  # fmt: skip
        for rank, mask in enumerate(proposals):
            detections.append({
                "image_id": number, "category_id": 1, "score": 1 - rank / 100, "segmentation": mask,
                "bbox": list(coco_bbox_xywh(mask)),
            })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number + 1, "width": 150, "height": 150} for number in range(4)],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": annotations,
        }
        truth.createIndex()
        # loadRes would take boxes for the masks where there are both.
        found = [
            {key: one[key] for key in one if key != {"segm": "bbox", "bbox": "segmentation"}[kind]}
            for one in detections
        ]
        judge = COCOeval(truth, truth.loadRes(found), kind)
        judge.params.useCats, judge.params.maxDets = 0, list(LIMITS)
        judge.evaluate()
        judge.accumulate()
    recall = judge.eval["recall"]  # [T, K, A, M]
    assert recall.shape == (len(IOU_THRESHOLDS), 1, len(AREAS), len(LIMITS))
    shares = [counts.average_recall(limit, area) for area in AREAS for limit in LIMITS]
    expected = recall[:, 0].mean(axis=0).reshape(-1)
    assert None not in shares
    assert np.asarray(shares) == pytest.approx(expected, abs=1e-12)
    assert 0.2 < shares[0] < shares[1] < 0.95  # a case that tells something
