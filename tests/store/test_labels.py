from __future__ import annotations

import pytest
from tests.store_for_tests import add_item, change, save

from segany import ConflictError, DataError, NotFoundError
from segany.core.instance import Category
from segany.store import Attribute, Label, Store

CELL = Label(
    1, "cell", "#112233", "1", attributes=(Attribute("stage", "choice", ("G1", "G2")), Attribute("n", "number"))
)


def test_labels_have_versions(store: Store) -> None:
    assert store.labels.current().labels == ()
    second = store.labels.replace(1, [CELL, Label(0, "debris")], "ada")
    third = store.labels.replace(2, [Label(0, "dust"), CELL], "bob")
    assert (second.version, third.version) == (2, 3)
    assert store.labels.current() == third == store.labels.version(3)
    assert store.labels.version(2) == second
    assert store.labels.version(1).labels == ()
    assert store.project.label_version == 3
    with pytest.raises(NotFoundError):
        store.labels.version(4)


def test_stale_change_of_labels_is_refused(store: Store) -> None:
    store.labels.replace(1, [CELL], "ada")
    with pytest.raises(ConflictError, match="version 2, not 1"):
        store.labels.replace(1, [], "bob")
    assert store.labels.current().labels == (CELL,)


def test_used_label_is_archived_and_never_removed(store: Store) -> None:
    store.labels.replace(1, [CELL, Label(2, "debris")], "ada")
    item, made = add_item(store), change(label_id=1)
    save(store, item, made, change(made.object_id, made.revision_id, label_id=None, deleted=True))
    with pytest.raises(DataError, match="Archive it"):
        store.labels.replace(2, [Label(2, "debris")], "ada")
    archived = Label(1, "cell", archived=True)
    store.labels.replace(2, [archived], "ada")  # nothing used "debris"
    assert store.labels.current().labels == (archived,)
    save(store, item, change(label_id=1))  # of a person who was offline meanwhile


def test_id_of_a_removed_label_is_not_used_again(store: Store) -> None:
    store.labels.replace(1, [Label(1, "cat")], "ada")
    store.labels.replace(2, [], "ada")
    with pytest.raises(DataError, match="another label's"):
        store.labels.replace(3, [Label(1, "dog")], "ada")
    assert store.labels.ensure([Category(9, "dog")], "ada") == {9: 2}


@pytest.mark.parametrize(
    "labels",
    [
        [Label(1, "a"), Label(1, "b")],
        [Label(1, "a"), Label(2, "a")],
        [Label(1, "a", hotkey="1"), Label(2, "b", hotkey="1")],
    ],
)
def test_labels_that_clash_are_refused(store: Store, labels: list[Label]) -> None:
    with pytest.raises(DataError, match="Two labels"):
        store.labels.replace(1, labels, "ada")


def test_archived_label_frees_its_hotkey(store: Store) -> None:
    store.labels.replace(1, [Label(1, "a", hotkey="1", archived=True), Label(2, "b", hotkey="1")], "ada")


@pytest.mark.parametrize(
    "values",
    [
        {"id": -1}, {"id": 2**31}, {"name": ""}, {"name": "a\0b"}, {"color": "red"}, {"color": "#12345g"},
        {"hotkey": "0"}, {"hotkey": "12"}, {"attributes": (Attribute("a", "text"), Attribute("a", "number"))},
    ],
)  # fmt: skip
def test_label_refuses_what_makes_no_sense(values: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Label(**{"id": 1, "name": "cell", **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "choices"), [("text", ("a",)), ("choice", ()), ("color", ())])
def test_attribute_refuses_what_makes_no_sense(kind: str, choices: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        Attribute("a", kind, choices)  # type: ignore[arg-type]


def test_categories_find_their_labels(store: Store) -> None:
    store.labels.replace(1, [CELL], "ada")
    categories = [Category(90, "cell"), Category(5, "dust"), Category(7, "dust")]
    assert store.labels.ensure(categories, "import") == {90: 1, 5: 2, 7: 2}
    assert store.labels.ensure(categories, "import") == {90: 1, 5: 2, 7: 2}
    assert [label.name for label in store.labels.current().labels] == ["cell", "dust"]
    assert store.labels.current().version == 3
