from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store_for_tests import HEIGHT, WIDTH, add_item, change, reference_to, save

from segany import DataError, ImageError, NotFoundError, StoreError
from segany.store import ItemFilter, Label, NewItem, Place, Store, split_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "day1").mkdir(parents=True)
    for name in ("a.png", "b.png", "day1/c.png"):
        (folder / name).write_bytes(f"bytes of {name}".encode())
    return folder


def _refer(store: Store, folder: Path, *names: str) -> tuple[str, ...]:
    store.items.add_root("photos", folder)
    return store.items.add([reference_to(name, (folder / name).read_bytes()) for name in names])


def test_items_are_listed_in_the_order_they_were_added(store: Store) -> None:
    names = ["c.png", "a.png", "b.png"]
    ids = [add_item(store, name) for name in names]
    page = store.items.page()
    assert page.total == 3
    assert [(item.id, item.name, item.position) for item in page.items] == list(zip(ids, names, range(3), strict=True))
    assert [item.id for item in store.items.page(offset=1, limit=1).items] == ids[1:2]
    assert store.items.page(offset=5).items == ()
    assert store.items.place(ids[0]) == Place(0, 3, None, ids[1])
    assert store.items.place(ids[1]) == Place(1, 3, ids[0], ids[2])
    assert store.items.place(ids[2]) == Place(2, 3, ids[1], None)
    item = store.items.get(ids[0])
    assert (item.width, item.height, item.size_hw, item.media_type) == (WIDTH, HEIGHT, (HEIGHT, WIDTH), "image/png")
    assert item.sha256 == hashlib.sha256(b"c.png").hexdigest()


def test_items_are_sorted(store: Store) -> None:
    ids = {name: add_item(store, name) for name in ("b10.png", "A.png", "b9.png", "ä.png", "C.png")}
    store.items.set_state(ids["C.png"], "done")
    save(store, ids["A.png"], change(), change())
    save(store, ids["b9.png"], change())
    store.items.set_state(ids["ä.png"], "skipped")

    def names(order: str) -> list[str]:
        return [item.name for item in store.items.page(ItemFilter(order=order)).items]  # type: ignore[arg-type]

    assert names("name") == ["A.png", "b9.png", "b10.png", "C.png", "ä.png"]
    assert names("position") == ["b10.png", "A.png", "b9.png", "ä.png", "C.png"]
    assert names("updated_at") == ["b10.png", "C.png", "A.png", "b9.png", "ä.png"]
    assert names("objects") == ["b10.png", "ä.png", "C.png", "b9.png", "A.png"]
    for order in ("name", "position", "updated_at", "objects"):
        assert names(f"-{order}") == names(order)[::-1]
        for direction in ("", "-"):
            chosen = ItemFilter(order=direction + order)  # type: ignore[arg-type]
            listed = [item.id for item in store.items.page(chosen).items]
            places = [store.items.place(item_id, chosen) for item_id in listed]
            assert [place.index for place in places] == [0, 1, 2, 3, 4]
            assert {place.total for place in places} == {5}
            assert [place.next_id for place in places] == [*listed[1:], None]
            assert [place.previous_id for place in places] == [None, *listed[:-1]]
    done = ItemFilter(state="done", order="name")
    assert store.items.place(ids["ä.png"], done) == Place(1, 1, ids["C.png"], None)


def test_items_are_filtered(store: Store) -> None:
    store.labels.replace(1, [Label(1, "cell"), Label(2, "dust")], "ada")
    ids = [add_item(store, name) for name in ("Straße_1.png", "100%.png", "x_1.png", "x11.png")]
    save(store, ids[0], change(label_id=1), change(label_id=1), change(label_id=2))
    save(store, ids[2], change(label_id=1))
    store.items.set_state(ids[2], "done")

    def found(**values: object) -> list[int]:
        chosen = ItemFilter(**values)  # type: ignore[arg-type]
        page = store.items.page(chosen)
        assert page.total == len(page.items)
        assert [item.id for item in store.items.iterate(chosen)] == [item.id for item in page.items]
        return [ids.index(item.id) for item in page.items]

    assert found(state="todo") == [1, 3]
    assert found(state="in_progress") == [0]
    assert found(label_ids=(1,)) == [0, 2]
    assert found(label_ids=(2,)) == [0]
    assert found(label_ids=(3,)) == []
    assert found(label_ids=(1, 2, 3)) == [0, 2]
    assert found(label_ids=(1,), state="done") == [2]
    assert found(text="STRASSE") == [0]
    assert found(text="%") == [1]
    assert found(text="_1") == [0, 2]
    assert found(text="x", label_ids=(1,), state="done", order="position") == [2]
    assert store.items.count_by_state() == {"todo": 2, "in_progress": 1, "done": 1, "skipped": 0}


def test_names_that_many_items_have_are_found_page_by_page(store: Store) -> None:
    store.items.add_root("photos", Path(tempfile.gettempdir()))
    facts = [NewItem(f"x{n:03}.png", f"{n:064x}", 1, 1, "image/png", 1, root="photos", path=f"{n}") for n in range(620)]
    ids = store.items.add(facts)
    store.items.set_state(ids[610], "done")
    many = ItemFilter(text="X", order="-name")
    page = store.items.page(many, offset=500, limit=100)
    assert (page.total, [item.id for item in page.items]) == (620, list(reversed(ids))[500:600])
    few = ItemFilter(text="x5", order="-name")
    page = store.items.page(few, offset=90)
    assert (page.total, [item.id for item in page.items]) == (100, list(reversed(ids[500:510])))
    assert [item.id for item in store.items.page(ItemFilter("done", text="x61")).items] == [ids[610]]
    assert store.items.place(ids[555], few) == Place(44, 100, ids[556], ids[554])
    assert store.items.page(ItemFilter(text="nothing"), offset=3).total == 0
    assert store.items.page(few, limit=0).items == store.items.page(few, offset=100).items == ()


def test_a_name_that_is_not_there_is_looked_for_once(store: Store) -> None:
    """Whatever else the filter asks for."""
    statements: list[str] = []
    add_item(store)
    sa.event.listen(store.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert store.items.page(ItemFilter("todo", text="nothing", order="-objects")).total == 0
    assert len([statement for statement in statements if "LIKE" in statement]) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"state": "open"}, {"order": "sha256; DROP TABLE items"}, {"label_ids": ("1",)}, {"text": "\0"},
        {"label_ids": tuple(range(2000))},
    ],
)  # fmt: skip
def test_filter_refuses_what_it_does_not_know(values: dict[str, object]) -> None:
    with pytest.raises(DataError):
        ItemFilter(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("offset", "limit"), [(-1, 10), (0, 501), (2**70, 1), (0, True)])
def test_page_refuses_what_is_out_of_range(store: Store, offset: int, limit: int) -> None:
    with pytest.raises(DataError):
        store.items.page(offset=offset, limit=limit)


def test_iteration_goes_beyond_a_page(store: Store) -> None:
    sha256 = store.blobs.put(b"x", "image/png")
    names = [f"{number}.png" for number in range(501)]
    store.items.add([NewItem(name, sha256, 1, 1, "image/png", 1) for name in names])
    assert [item.name for item in store.items.iterate()] == names


def test_same_image_is_added_once(store: Store, photos: Path) -> None:
    first = _refer(store, photos, "a.png", "b.png")
    assert _refer(store, photos, "b.png", "a.png", "day1/c.png")[:2] == first[::-1]
    blob = add_item(store, "x.png", b"one")
    assert add_item(store, "x.png", b"one") == blob
    assert add_item(store, "y.png", b"one") not in (blob, *first)
    assert store.items.page().total == 5
    assert [item.position for item in store.items.iterate()] == [0, 1, 2, 3, 4]


def test_split_follows_the_content(store: Store) -> None:
    one, other = add_item(store, "one.png", b"same"), add_item(store, "two.png", b"same")
    assert store.items.get(one).split == store.items.get(other).split == split_of(hashlib.sha256(b"same").hexdigest())
    splits = [split_of(hashlib.sha256(b"%d" % number).hexdigest()) for number in range(4000)]
    assert [round(splits.count(split) / 4000, 1) for split in ("train", "val", "test")] == [0.8, 0.1, 0.1]
    assert split_of("0" * 64) == "train"
    assert split_of("f" * 64) == "test"


def test_state_changes(store: Store) -> None:
    item = add_item(store)
    before = store.items.get(item)
    assert before.state == "todo"
    assert store.items.set_state(item, "skipped").state == "skipped"
    assert store.items.get(item).updated_at > before.updated_at
    save(store, item, change())
    assert store.items.get(item).state == "skipped"
    with pytest.raises(DataError, match="must be one of"):
        store.items.set_state(item, "open")  # type: ignore[arg-type]


def test_files_are_opened(store: Store, photos: Path) -> None:
    item, referred = add_item(store, data=b"one"), _refer(store, photos, "day1/c.png")[0]
    assert store.items.file(item).read_bytes() == b"one"
    assert store.items.file(referred) == (photos / "day1" / "c.png").resolve()


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "day1/../../secret", "a\\b", "", "day1//c.png", "./a.png", "a\0"]
)
def test_reference_out_of_its_root_is_refused(path: str) -> None:
    with pytest.raises(DataError):
        reference_to(path, b"x")


def test_link_out_of_its_root_is_refused(store: Store, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (photos / "link.png").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="leads out of"):
        _refer(store, photos, "link.png")
    (item,) = _refer(store, photos, "a.png")
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(tmp_path / "secret")  # afterwards
    with pytest.raises(ImageError, match="outside the root"):
        store.items.file(item)


def test_unknown_root_and_missing_folder_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no root"):
        store.items.add([reference_to("a.png", b"x", root="nowhere")])
    with pytest.raises(DataError, match="no folder"):
        store.items.add_root("photos", tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="no root"):
        store.items.relink("nowhere")
    with pytest.raises(NotFoundError, match="no file"):
        store.items.add([NewItem("a.png", "0" * 64, 1, 1, "image/png", 1)])
    assert store.items.page().total == 0


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""}, {"name": "x" * 501}, {"sha256": "x"}, {"sha256": "../../../../etc/passwd"}, {"width": 0},
        {"height": 2**31}, {"byte_count": -1}, {"root": "photos"}, {"media_type": ""},
    ],
)  # fmt: skip
def test_new_item_refuses_what_makes_no_sense(values: dict[str, object]) -> None:
    facts = {"name": "a", "sha256": "0" * 64, "width": 1, "height": 1, "media_type": "image/png", "byte_count": 1}
    with pytest.raises(DataError):
        NewItem(**{**facts, **values})  # type: ignore[arg-type]


def test_longest_names_and_paths_are_kept(store: Store, tmp_path: Path) -> None:
    name, path = "\U0001f600" * 500, "/".join(["ü" * 100] * 5)
    (tmp_path / "photos" / path).parent.mkdir(parents=True)
    (tmp_path / "photos" / path).write_bytes(b"x")
    store.items.add_root("photos", tmp_path / "photos")
    facts = reference_to(path, b"x")
    (item,) = store.items.add([NewItem(name, facts.sha256, 1, 1, "image/png", 1, root="photos", path=path)])
    assert store.items.page(ItemFilter(order="name")).items[0].name == name
    assert store.items.file(item).read_bytes() == b"x"


def test_moved_images_are_found_by_content(store: Store, photos: Path, tmp_path: Path) -> None:
    a, b, c = _refer(store, photos, "a.png", "b.png", "day1/c.png")
    moved = tmp_path / "elsewhere"
    photos.rename(moved)
    with pytest.raises(ImageError, match="relink"):
        store.items.file(a)
    first, second = (moved / "a.png").read_bytes(), (moved / "b.png").read_bytes()
    (moved / "a.png").write_bytes(second)  # two files with each other's name
    (moved / "b.png").write_bytes(first)
    (moved / "day1" / "c.png").unlink()
    result = store.items.relink("photos", moved)
    assert (result.found, [item.id for item in result.missing]) == (2, [c])
    assert store.items.file(a).read_bytes() == first
    assert store.items.file(b).read_bytes() == second
    assert store.items.roots()[0].path == moved.resolve()
    again = store.items.relink("photos")
    assert (again.found, len(again.missing)) == (0, 1)


def test_changed_image_is_told_of(store: Store, photos: Path) -> None:
    (item,) = _refer(store, photos, "a.png")
    (photos / "a.png").write_bytes(b"others")
    with pytest.raises(ImageError, match="was changed"):
        store.items.file(item)
    assert [lost.id for lost in store.items.relink("photos").missing] == [item]


def test_damaged_and_missing_blobs(store: Store) -> None:
    item = add_item(store, data=b"good")
    path = store.items.file(item)
    path.chmod(0o600)
    path.write_bytes(b"evil")
    sha256 = hashlib.sha256(b"good").hexdigest()
    with pytest.raises(StoreError, match="damaged"):
        store.blobs.read(sha256)
    store.blobs.put(b"good", "image/png")  # mends it
    assert store.blobs.read(sha256) == b"good"
    path.unlink()
    with pytest.raises(NotFoundError):
        store.blobs.read(sha256)
    with pytest.raises(ImageError, match="missing"):
        store.items.file(item)


@pytest.mark.parametrize("name", ["../../etc/passwd", "0" * 63, "0" * 63 + "/", "", "\0" * 64, "A" * 64])
def test_blobs_have_no_other_names(store: Store, name: str) -> None:
    with pytest.raises(NotFoundError):
        store.blobs.path(name)


def test_interrupted_write_of_a_blob_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        store.blobs.put(b"one", "image/png")
    monkeypatch.undo()
    assert [path for path in (store.folder / "blobs").rglob("*") if path.is_file()] == []
