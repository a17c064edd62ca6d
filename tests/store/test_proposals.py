from __future__ import annotations

import numpy as np
import pytest
from tests.store_for_tests import HEIGHT, WIDTH, add_item, square

from segany import DataError, NotFoundError
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.store import Store


def _found(score: float) -> Instances:
    return Instances(
        [square(1, 2), square(5, 6)],
        (HEIGHT, WIDTH),
        boxes_xyxy=[[1, 2, 5.5, 6], [5, 6, 9, 10]],
        scores=[score, np.nan],
        category_ids=[3, -1],
        categories=[Category(3, "cell", "life")],
        object_ids=[-1, 8],
        sources="automatic",
        columns={
            "predicted_iou": np.array([0.1, np.nan], dtype=np.float32),
            "point_xy": np.array([[1.5, 2.5], [3, 4]]),
            "iscrowd": np.array([True, False]),
        },
    )


def test_proposals_are_kept_by_model(store: Store) -> None:
    item = add_item(store)
    with pytest.raises(NotFoundError, match="no proposals"):
        store.proposals.get(item)
    store.proposals.put(item, "sam@1", _found(0.3))
    store.proposals.put(item, "sam@2", _found(0.5))
    store.proposals.put(item, "sam@2", _found(0.1))  # in place of the others
    kept, wanted = store.proposals.get(item), _found(0.1)
    assert kept.model_version == "sam@2"
    assert store.proposals.get(item, "sam@1").instances.scores[0] == np.float32(0.3)
    assert kept.instances.rle_counts == wanted.rle_counts
    assert kept.instances.categories == wanted.categories
    for name in ("boxes_xyxy", "scores", "category_ids", "object_ids", "sources", *wanted.columns):
        ours, theirs = getattr(kept.instances, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(NotFoundError):
        store.proposals.get(item, "other")


def test_proposals_that_cannot_be_kept(store: Store) -> None:
    item = add_item(store)
    with pytest.raises(DataError, match="high and wide"):
        store.proposals.put(item, "sam", Instances.empty((3, 3)))
    with pytest.raises(DataError, match="neither numbers nor text"):
        store.proposals.put(item, "sam", _found(1).with_columns(thing=np.array([object(), object()])))
