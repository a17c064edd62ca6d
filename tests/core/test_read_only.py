"""Values stay read-only when they are copied or travel between processes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from segany import Embedding, FrameResult, Instances, Preprocessing, Prompt

MASKS = np.eye(6, 8, dtype=bool)[None]
VALUES: list[tuple[Any, str]] = [
    (Prompt(points_xy=[[1, 2]]), "points_xy"),
    (Instances.from_masks(MASKS, scores=[0.5]), "scores"),
    (FrameResult.from_masks(0, [1], MASKS, [1.0]).instances, "boxes_xyxy"),
]


@pytest.mark.parametrize(("value", "name"), VALUES)
@pytest.mark.parametrize("send", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_arrays_of_copies_are_read_only(value: Any, name: str, send: Any) -> None:
    array = getattr(send(value), name)
    np.testing.assert_array_equal(array, getattr(value, name))
    assert not array.flags.writeable


def test_features_of_an_unpickled_embedding_are_read_only() -> None:
    embedding = Embedding((np.ones((2, 3, 3), np.float32),), (6, 8), Preprocessing(48), "a", "b", "c")
    sent = pickle.loads(pickle.dumps(embedding))
    assert not sent.features[0].flags.writeable
