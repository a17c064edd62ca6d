from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store_for_tests import HEIGHT, WIDTH, add_item, change, click, new_id, save, square

from segany import DataError, NotFoundError
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.core.rle import encode_masks
from segany.store import Change, ItemFilter, Label, PromptEvent, Store


def test_saved_object_is_read_back(store: Store) -> None:
    item = add_item(store)
    store.labels.replace(1, [Label(4, "cell")], "ada")
    made = change(
        counts=square(2, 3), label_id=4, attributes={"stage": "G2", "sure": True}, z=1.5, source="assisted",
        active_ms=1234, prompt_events=(click(3, 4, model_version="mobile_sam@1"),),
    )  # fmt: skip
    save(store, item, made)
    (state,) = store.annotations.objects(item)
    assert (state.id, state.revision_id, state.parent_id) == (made.object_id, made.revision_id, None)
    assert (state.counts, state.box_xyxy, state.area) == (square(2, 3), (2, 3, 6, 7), 16)
    assert (state.label_id, state.label_version, state.z) == (4, 2, 1.5)
    assert state.attributes == {"stage": "G2", "sure": True}
    assert (state.source, state.author, state.model_version, state.deleted) == (
        "assisted",
        "ada",
        "mobile_sam@1",
        False,
    )
    assert store.items.get(item).state == "in_progress"
    assert store.items.get(item).objects == 1


def test_saving_again_does_nothing(store: Store) -> None:
    item, made, batch = add_item(store), change(prompt_events=(click(1, 1),)), new_id()
    first = store.annotations.save(item, batch, [made], "ada")
    updated_at = store.items.get(item).updated_at
    again = store.annotations.save(item, batch, [made], "ada")
    assert [saved.status for saved in first.saved] == ["saved"]
    assert [saved.status for saved in again.saved] == ["known"]
    (revision,) = store.annotations.history(item, made.object_id)
    assert len(revision.prompt_events) == 1
    assert store.items.get(item).objects == 1
    assert store.items.get(item).updated_at == updated_at


def test_changes_of_a_batch_build_on_each_other(store: Store) -> None:
    item = add_item(store)
    first = change()
    second = change(first.object_id, first.revision_id, counts=square(9, 9))
    third = change(first.object_id, second.revision_id, counts=square(1, 1))
    assert not save(store, item, first, second, third).conflicts
    (state,) = store.annotations.objects(item)
    assert (state.counts, state.parent_id) == (square(1, 1), second.revision_id)


def test_stale_change_is_kept_beside_the_state(store: Store) -> None:
    item = add_item(store)
    first = change()
    save(store, item, first)
    theirs = change(first.object_id, first.revision_id, counts=square(5, 5))
    yours = change(first.object_id, first.revision_id, counts=square(9, 9))
    other = change()
    save(store, item, theirs, author="bob")
    for _repeat in range(2):
        result = save(store, item, yours, other)
        (conflict,) = result.conflicts
        assert (conflict.object_id, conflict.yours_id) == (first.object_id, yours.revision_id)
        assert (conflict.theirs.revision_id, conflict.theirs.author) == (theirs.revision_id, "bob")
        assert [saved.object_id for saved in result.saved] == [other.object_id]
    history = store.annotations.history(item, first.object_id)
    assert [(entry.state.counts, entry.conflicting) for entry in history] == [
        (first.counts, False), (theirs.counts, False), (yours.counts, True),
    ]  # fmt: skip
    settled = change(first.object_id, theirs.revision_id, counts=square(9, 9))
    assert not save(store, item, settled).conflicts
    assert {state.revision_id for state in store.annotations.objects(item)} == {settled.revision_id, other.revision_id}


def test_change_of_a_conflicting_revision_conflicts_too(store: Store) -> None:
    item, first = add_item(store), change()
    save(store, item, first)
    save(store, item, change(first.object_id, first.revision_id))
    yours = change(first.object_id, first.revision_id)
    more = change(first.object_id, yours.revision_id)
    assert [conflict.yours_id for conflict in save(store, item, yours, more).conflicts] == [
        yours.revision_id, more.revision_id,
    ]  # fmt: skip


def test_new_object_of_a_known_id_conflicts(store: Store) -> None:
    item, first = add_item(store), change()
    save(store, item, first)
    assert len(save(store, item, change(first.object_id)).conflicts) == 1


def test_deleted_object_comes_back(store: Store) -> None:
    item = add_item(store)
    store.labels.replace(1, [Label(1, "cell")], "ada")
    first = change(label_id=1)
    gone = change(first.object_id, first.revision_id, label_id=1, deleted=True)
    save(store, item, first, gone)
    assert store.annotations.objects(item) == ()
    assert [state.id for state in store.annotations.objects(item, deleted=True)] == [first.object_id]
    assert store.items.get(item).objects == 0
    assert store.items.page(ItemFilter(label_ids=(1,))).total == 0
    save(store, item, change(first.object_id, gone.revision_id, label_id=1))
    assert store.items.get(item).objects == 1
    assert store.items.page(ItemFilter(label_ids=(1,))).total == 1


def test_bad_change_saves_nothing_of_its_batch(store: Store) -> None:
    item, other_item = add_item(store), add_item(store, "b.png")
    elsewhere = change()
    save(store, other_item, elsewhere)
    bad = [
        (change(counts="garbage~"), "does not fit"),
        (change(counts=encode_masks(np.ones((3, 3), dtype=bool))[0]["counts"]), "add up"),
        (change(label_id=7), "label 7"),
        (change(elsewhere.object_id, elsewhere.revision_id), "another item"),
        (change(revision_id=elsewhere.revision_id), "another object"),
    ]
    for wrong, message in bad:
        with pytest.raises(DataError, match=message):
            save(store, item, change(), wrong)
    known, other = change(), change()
    save(store, item, known, other)
    with pytest.raises(DataError, match="another object's"):
        save(store, item, change(known.object_id, other.revision_id))
    assert {state.id for state in store.annotations.objects(item)} == {known.object_id, other.object_id}


def test_base_that_never_arrived(store: Store) -> None:
    item, first = add_item(store), change(base_id=new_id())
    assert len(save(store, item, first).saved) == 1
    late = change(first.object_id, new_id())
    (conflict,) = save(store, item, late).conflicts
    assert (conflict.yours_id, conflict.theirs.revision_id) == (late.revision_id, first.revision_id)
    assert [entry.conflicting for entry in store.annotations.history(item, first.object_id)] == [False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"object_id": "1"}, "UUID"),
        ({"object_id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}, "lower case"),
        ({"base_id": "x"}, "UUID"),
        ({"counts": ""}, "1 to"),
        ({"label_id": True}, "whole number"),
        ({"label_id": 2**31}, "whole number"),
        ({"z": float("nan")}, "number"),
        ({"z": 10**400}, "number"),
        ({"active_ms": 10**5000}, "digits"),
        ({"source": "human"}, "manual, assisted"),
        ({"active_ms": -1}, "whole number"),
        ({"attributes": {"a": float("inf")}}, "JSON"),
        ({"attributes": {"a": {1, 2}}}, "JSON"),
        ({"attributes": [1]}, "object"),
        ({"attributes": {"a": "x" * 2**21}}, "too large"),
        ({"model_version": "\0"}, "NUL"),
        ({"model_version": "\ud800"}, "Unicode"),
    ],
)
def test_change_refuses_what_cannot_be_stored(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Change(**{"object_id": new_id(), "revision_id": new_id(), "base_id": None, "counts": square(1, 1), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values", [{"id": "x"}, {"kind": "drop table"}, {"sequence": -1}, {"candidate": 10**9}, {"payload": "x"}]
)
def test_prompt_event_refuses_what_cannot_be_stored(values: dict[str, object]) -> None:
    with pytest.raises(DataError):
        PromptEvent(**{"id": new_id(), "sequence": 0, "kind": "point", **values})  # type: ignore[arg-type]


def test_unknown_ids_are_not_found(store: Store) -> None:
    item = add_item(store)
    for unknown in (new_id(), "x", "'; DROP TABLE items; --", "\0"):
        with pytest.raises(NotFoundError):
            save(store, unknown, change())
        with pytest.raises(NotFoundError):
            store.annotations.objects(unknown)
        with pytest.raises(NotFoundError):
            store.annotations.history(item, unknown)
        with pytest.raises(NotFoundError):
            store.annotations.replay(unknown)


def test_mask_traces_back_to_prompts_model_and_image(store: Store) -> None:
    item = add_item(store)
    events = [click(2, 3, 0, model_version="sam@2", candidate=1, latency_ms=31), click(4, 5, 1, model_version="sam@2")]
    first = change(prompt_events=(events[0],), source="assisted")
    save(store, item, first)
    second = change(first.object_id, first.revision_id, counts=square(7, 7), prompt_events=(events[1],))
    stale = change(first.object_id, first.revision_id, counts=square(9, 9))
    save(store, item, second, stale)
    replay = store.annotations.replay(second.revision_id)
    assert replay.item == store.items.get(item)
    assert [entry.state.revision_id for entry in replay.revisions] == [first.revision_id, second.revision_id]
    assert [event for entry in replay.revisions for event in entry.prompt_events] == events
    assert replay.revisions[-1].state.model_version == "sam@2"
    assert store.annotations.replay(stale.revision_id).revisions[-1].conflicting


def test_order_of_drawing(store: Store) -> None:
    item = add_item(store)
    low, high, first = change(z=-1), change(z=2), change(z=0)
    save(store, item, high, first, low)
    assert [state.z for state in store.annotations.objects(item)] == [-1, 0, 2]


def test_instances_go_in_and_come_out(store: Store) -> None:
    item = add_item(store)
    masks = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    masks[0, 2:9, 3:8], masks[1, 4:5, 1:20] = True, True  # the third is empty
    masks[0, 4, 4] = False  # a hole
    given_in = Instances.from_masks(
        masks, category_ids=[7, -1, 9], categories=[Category(7, "dog"), Category(9, "cat"), Category(1, "unused")],
        sources=["human", "automatic", "text"],
    )  # fmt: skip
    batch = new_id()
    for _repeat in range(2):
        store.annotations.add_instances(item, batch, given_in, "import")
    came_out = store.annotations.instances(item)
    assert came_out.rle_counts == given_in.rle_counts
    assert (came_out.masks() == masks).all()
    assert [instance.category and instance.category.name for instance in came_out] == ["dog", None, "cat"]
    assert [category.name for category in came_out.categories] == ["dog", "cat"]
    assert came_out.sources.tolist() == ["human", "automatic", "automatic"]
    assert set(came_out.object_uuid.tolist()) == {state.id for state in store.annotations.objects(item)}
    assert (came_out.boxes_xyxy == given_in.boxes_xyxy).all()


def test_instances_of_another_size_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match="but the image"):
        store.annotations.add_instances(add_item(store), new_id(), Instances.empty((5, 5)), "ada")


def test_1000_objects_in_one_batch(store: Store) -> None:
    item = add_item(store)
    masks = Instances(tuple(square(index % 26, index % 16) for index in range(1000)), (HEIGHT, WIDTH))
    store.annotations.add_instances(item, new_id(), masks, "ada", source="auto", model_version="sam@2")
    assert store.annotations.instances(item).rle_counts == masks.rle_counts


def test_20_writers_lose_and_double_nothing(store: Store) -> None:
    item = add_item(store)
    shared = change()
    save(store, item, shared)

    def annotate(writer: int) -> list[str]:
        mine = []
        for number in range(5):
            made = change(counts=square(writer, number), prompt_events=(click(writer, number),))
            contested = change(shared.object_id, shared.revision_id, counts=square(number, 7))
            batch = new_id()
            for _retry in range(2):  # as after a connection that broke before the answer
                store.annotations.save(item, batch, [made, contested], f"writer {writer}")
            mine += [made.object_id, contested.revision_id]
        return mine

    with ThreadPoolExecutor(20) as pool:
        written = [name for names in pool.map(annotate, range(20)) for name in names]
    states = store.annotations.objects(item)
    assert len(states) == 101 == store.items.get(item).objects
    assert {state.id for state in states} == {shared.object_id, *written[::2]}
    assert all(len(store.annotations.history(item, state.id)) == 1 for state in states if state.id != shared.object_id)
    history = store.annotations.history(item, shared.object_id)
    assert {entry.state.revision_id for entry in history} == {shared.revision_id, *written[1::2]}
    assert len(history) == 101
    assert sum(not entry.conflicting for entry in history) == 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from([None, 1, 2]), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_store_does_what_a_list_of_states_does(
    store: Store, steps: list[tuple[int, int, int | None, bool, bool]]
) -> None:
    """Random changes with fresh and stale bases, repeated or not, against a model of a few lines."""
    heads: dict[str, Change] = {}
    made: dict[str, list[Change]] = {}
    objects = [new_id() for _ in range(3)]
    schema = store.labels.current()
    if not schema.labels:
        store.labels.replace(schema.version, [Label(1, "a"), Label(2, "b")], "ada")
    name = new_id()
    item = add_item(store, name)
    for number, age, label_id, deleted, repeat in steps:
        object_id = objects[number]
        known = made.setdefault(object_id, [])
        base = known[-1 - age % len(known)] if known else None
        step = change(object_id, base.revision_id if base else None, label_id=label_id, deleted=deleted)
        head = heads.get(object_id)
        is_stale = (head and head.revision_id) != step.base_id
        for _repeat in range(1 + repeat):
            assert len(save(store, item, step).conflicts) == is_stale
        known.append(step)
        if not is_stale:
            heads[object_id] = step
    alive = {object_id: head for object_id, head in heads.items() if not head.deleted}
    assert {state.id: state.revision_id for state in store.annotations.objects(item)} == {
        object_id: head.revision_id for object_id, head in alive.items()
    }
    assert store.items.get(item).objects == len(alive)
    for label_id in (1, 2):
        has_label = any(head.label_id == label_id for head in alive.values())
        assert store.items.page(ItemFilter(label_ids=(label_id,), text=name)).total == has_label
    for object_id, changes in made.items():
        history = store.annotations.history(item, object_id)
        assert [entry.state.revision_id for entry in history] == [step.revision_id for step in changes]


def test_reopened_project_has_everything(tmp_path: Path, database_url: str | None) -> None:
    with Store.create(tmp_path / "project", database=database_url) as store:
        item, made = add_item(store), change()
        save(store, item, made)
    with Store.open(tmp_path / "project") as store:
        assert [state.id for state in store.annotations.objects(item)] == [made.object_id]
