"""Snapshots of annotations and model versions, on either database."""

from __future__ import annotations

import hashlib
from itertools import count
from pathlib import Path

import pytest
from tests.store_for_tests import add_item, change, new_id, save, square

from segany import ConflictError, NotFoundError
from segany.store import Store, export_archive, restore_archive
from segany.store.items import split_of


def item_on(store: Store, split: str, number: int = 0) -> str:
    """An item whose content puts it on a side."""
    contents = (f"{split} {number} {attempt}".encode() for attempt in count())
    data = next(one for one in contents if split_of(hashlib.sha256(one).hexdigest()) == split)
    return add_item(store, f"{split}{number}.png", data)


def add_object(store: Store, item: str, source: str = "assisted", **values: object) -> str:
    one = change(source=source, **values)
    save(store, item, one)
    return one.revision_id


@pytest.fixture
def version(store: Store) -> str:
    return store.models.begin(new_id(), model="mobile_sam", state="current").id


def test_heads_are_those_of_a_side_state_and_source(store: Store) -> None:
    train, val = item_on(store, "train"), item_on(store, "val")
    manual, auto, other = add_object(store, train), add_object(store, train, "auto"), add_object(store, val, "manual")
    assert store.snapshots.heads("train", ["in_progress"], ["assisted"]) == (manual,)
    assert store.snapshots.heads("train", ["in_progress"], ["auto"]) == (auto,)
    assert store.snapshots.heads("val", ["in_progress"], ["assisted", "manual"]) == (other,)
    assert store.snapshots.heads("train", ["done"], ["assisted", "auto"]) == ()


def test_an_object_that_began_with_the_model_is_not_pure(store: Store) -> None:
    item = item_on(store, "val")
    first = change(source="auto")
    save(store, item, first)
    mended = change(first.object_id, first.revision_id, source="manual", counts=square(1, 1))
    save(store, item, mended)
    assert store.snapshots.heads("val", ["in_progress"], ["manual"]) == (mended.revision_id,)
    assert store.snapshots.heads("val", ["in_progress"], ["manual"], purely=True) == ()


def test_a_snapshot_stays_as_it_is(store: Store) -> None:
    item = item_on(store, "train")
    first = change(source="manual")
    save(store, item, first)
    snapshot = store.snapshots.put(new_id(), {"train": [first.revision_id]})
    save(store, item, change(first.object_id, first.revision_id, counts=square(5, 5), source="manual"))
    save(store, item, change(source="manual"))
    assert store.snapshots.get(snapshot.id) == snapshot
    assert store.snapshots.put(snapshot.id, {"train": []}) == snapshot
    [(found, [state])] = store.snapshots.objects(snapshot.id, "train").items()
    assert (found.id, state.counts) == (item, first.counts)
    assert store.snapshots.put(new_id(), {"train": [first.revision_id]}).digest == snapshot.digest
    with pytest.raises(NotFoundError, match="no revision"):
        store.snapshots.put(new_id(), {"train": [new_id()]})


def test_a_candidate_is_promoted_or_refused_and_any_version_brought_back(store: Store, version: str) -> None:
    better, worse = store.models.begin(new_id(), model="mobile_sam", recipe="x", parent_id=version), new_id()
    assert [one.number for one in store.models.list()] == [1, 2]
    promoted = store.models.end(better.id, promoted=True, message="better", figures={"iou": 0.9}, file=b"weights")
    assert (promoted.state, promoted.parent_id) == ("current", version)
    path = store.models.file(promoted)
    assert path is not None
    assert path.read_bytes() == b"weights"
    store.models.begin(worse, model="mobile_sam", recipe="x", parent_id=better.id)
    store.models.end(worse, promoted=False, message="worse", figures={})
    assert [one.state for one in store.models.list()] == ["retired", "current", "refused"]
    with pytest.raises(ConflictError, match="is no candidate"):
        store.models.end(worse, promoted=True, message="", figures={})
    with pytest.raises(NotFoundError, match="version 3 has no file: worse"):
        store.models.make_current(3)
    assert store.models.make_current(1).state == "current"
    assert [one.state for one in store.models.list()] == ["current", "retired", "refused"]
    assert store.models.current() == store.models.get(1)


def test_beginning_twice_is_once_and_there_is_one_current(store: Store, version: str) -> None:
    assert store.models.begin(version, model="other").model == "mobile_sam"
    with pytest.raises(ConflictError, match="current model already"):
        store.models.begin(new_id(), model="x", state="current")
    with pytest.raises(NotFoundError, match="no snapshot"):
        store.models.begin(new_id(), model="x", snapshot_id=new_id())
    candidate = store.models.begin(new_id(), model="x", parent_id=version)
    with pytest.raises(ConflictError, match="still being trained"):
        store.models.make_current(candidate.number)


def test_archives_hold_snapshots_and_models(store: Store, version: str, tmp_path: Path) -> None:
    revision = add_object(store, item_on(store, "train"))
    snapshot = store.snapshots.put(new_id(), {"train": [revision]})
    trained = store.models.begin(new_id(), model="x", recipe="r", parent_id=version, snapshot_id=snapshot.id)
    store.models.end(trained.id, promoted=True, message="m", figures={"a": [1, 2.5]}, file=b"weights", model="y")
    archive = export_archive(store, tmp_path / "project.zip")
    with restore_archive(archive, tmp_path / "restored") as restored:
        assert restored.models.list() == store.models.list()
        assert restored.snapshots.get(snapshot.id) == snapshot
        path = restored.models.file(restored.models.get(2))
        assert path is not None
        assert path.read_bytes() == b"weights"
        assert export_archive(restored, tmp_path / "again.zip").read_bytes() == archive.read_bytes()
