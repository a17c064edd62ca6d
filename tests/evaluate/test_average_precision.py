"""Average precision, beside the evaluator of COCO."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segany.core.arrays import FloatArray
from segany.evaluate.average_precision import average_precision, matched_proposals
from segany.evaluate.recall import pairwise_box_iou


def test_precision_is_averaged_over_recalls() -> None:
    """Two objects: one is found by the best proposal, the other one by the third, after a wrong one."""
    matched = matched_proposals(np.array([[1.0, 0.0], [0.4, 0.0], [0.0, 1.0]]))
    assert matched.tolist() == [[True, False, True]] * 10
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    assert average_precision([scores], [matched], 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision([scores[:1]], [matched[:, :1]], 2) == pytest.approx(51 / 101)


def test_images_are_pooled_by_score() -> None:
    right, wrong = np.ones((10, 1), dtype=np.bool_), np.zeros((10, 1), dtype=np.bool_)
    low, high = np.array([0.2], dtype=np.float32), np.array([0.7], dtype=np.float32)
    assert average_precision([low, high], [wrong, right], 1) == 1
    assert average_precision([high, low], [wrong, right], 1) == 0.5


def test_nothing_found_and_nothing_to_find() -> None:
    none, no_scores = np.zeros((10, 0), dtype=np.bool_), np.zeros(0, dtype=np.float32)
    assert average_precision([no_scores], [none], 3) == 0
    assert average_precision([], [], 3) == 0
    assert average_precision([no_scores], [none], 0) is None


def random_boxes(rng: np.random.Generator, count: int) -> FloatArray:
    corner, side = rng.integers(0, 60, (count, 2)), rng.integers(10, 40, (count, 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def test_it_is_that_of_cocos_evaluator() -> None:
    rng = np.random.default_rng(0)
    images, annotations, results = [], [], []
    scores, matched, objects = [], [], 0
    for image in range(1, 9):
        truth = random_boxes(rng, int(rng.integers(0, 6)))
        noisy = np.repeat(truth, 2, axis=0) + rng.normal(0, 3, (2 * len(truth), 4)).astype(np.float32)
        boxes = np.concatenate([noisy, random_boxes(rng, 3)])
        ranked = np.sort(rng.random(len(boxes)).astype(np.float32))[::-1]
        scores.append(ranked)
        matched.append(matched_proposals(pairwise_box_iou(boxes, truth)))
        objects += len(truth)
        images.append({"id": image, "width": 100, "height": 100})
        for box in truth.tolist():
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 1, "bbox": xywh})
            annotations[-1] |= {"area": xywh[2] * xywh[3], "iscrowd": 0}
        for box, score in zip(boxes.tolist(), ranked.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image, "category_id": 1, "bbox": xywh, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO()
        truths.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        truths.createIndex()
        evaluator = COCOeval(truths, truths.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    found = average_precision(scores, matched, objects)
    assert 0.2 < evaluator.stats[0] < 0.9
    assert found == pytest.approx(evaluator.stats[0], abs=1e-12)
