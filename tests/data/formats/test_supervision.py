"""supervision's `Detections`, with a stand-in for the library."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tests.instances_for_tests import SIZE_HW, make_instances, rectangle

from segany import Category, Instances, InstancesError, MissingExtraError, from_supervision, to_supervision

CATEGORIES = [Category(3, "cat"), Category(8, "dog")]
AUTOMATIC = make_instances(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), rectangle(0, 0, 1, 1)]))


class FakeDetections(SimpleNamespace):
    """Takes what the real class takes, and keeps it."""

    def __len__(self) -> int:
        return len(self.xyxy)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("supervision")
    stub.Detections = FakeDetections
    monkeypatch.setitem(sys.modules, "supervision", stub)


def test_what_detections_hold() -> None:
    detections = to_supervision(AUTOMATIC)
    assert detections.xyxy[1].tolist() == [5, 5, 9, 9]
    assert detections.xyxy.dtype == np.float32
    np.testing.assert_array_equal(detections.mask, AUTOMATIC.masks())
    np.testing.assert_array_equal(detections.confidence, AUTOMATIC.scores)
    np.testing.assert_array_equal(detections.data["stability_score"], AUTOMATIC.stability_score)
    assert (detections.class_id, detections.tracker_id) == (None, None)
    assert to_supervision(AUTOMATIC[:0]).xyxy.shape == (0, 4)


def test_round_trip() -> None:
    instances = Instances.from_masks(
        AUTOMATIC.masks(),
        scores=[0.5, 0.75, 1],
        category_ids=[8, 3, 8],
        categories=CATEGORIES,
        object_ids=[4, 5, 6],
        sources="human",
        columns={"stability_score": [0.1, 0.2, 0.3]},
    )
    detections = to_supervision(instances)
    assert detections.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert from_supervision(detections, source="human") == instances


def test_detections_without_names_or_masks() -> None:
    detections = to_supervision(AUTOMATIC)
    detections.class_id, detections.data = np.array([7, 7, 0]), {}
    assert from_supervision(detections).categories == (Category(0, "0"), Category(7, "7"))
    detections.mask = None
    with pytest.raises(InstancesError, match="only boxes"):
        from_supervision(detections)
    detections.xyxy = detections.xyxy[:0]
    assert from_supervision(detections, SIZE_HW) == Instances.empty(SIZE_HW)
    with pytest.raises(InstancesError, match="give the size"):
        from_supervision(detections)


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        to_supervision(AUTOMATIC)
