from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.store_for_tests import HEIGHT, WIDTH, add_item, change, click, content, new_id, reference_to, save, square

from segany import DataError, ImageError, OutputError, StoreError
from segany.core.instances import Instances
from segany.core.progress import Cancellation, ProgressEvent
from segany.store import Label, Store, export_archive, restore_archive


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """A project with everything: references, conflicts, deleted objects, archived labels, proposals."""
    store.update_project(settings={"model": "sam", "names": ["ä", "\u2028"]})
    store.labels.replace(1, [Label(1, "cell", hotkey="1"), Label(2, "dust")], "ada")
    store.labels.replace(2, [Label(1, "cell", archived=True), Label(2, "dust")], "bob")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "r.png").write_bytes(b"referred")
    store.items.add_root("photos", tmp_path / "photos")
    first = add_item(store, "a.png", b"same")
    add_item(store, "<img src=x onerror=alert(1)>.png", b"same")
    (third,) = store.items.add([reference_to("r.png", b"referred")])
    one = change(label_id=1, prompt_events=(click(1, 2, model_version="sam@1", candidate=2),), source="assisted")
    two = change(one.object_id, one.revision_id, counts=square(9, 9), attributes={"n": 1.25}, active_ms=77)
    stale = change(one.object_id, one.revision_id, label_id=2)
    gone = change(label_id=2)
    save(store, first, one, two, stale, gone, change(gone.object_id, gone.revision_id, deleted=True))
    save(store, third, change(label_id=2, z=-3), author="bob")
    store.items.set_state(third, "done")
    masks = Instances([square(1, 1)], (HEIGHT, WIDTH), sources="automatic", columns={"predicted_iou": np.array([0.1])})
    store.proposals.put(first, "sam@1", masks)
    store.jobs.submit("a", {})
    store.secret("session")
    return store


def test_restored_project_is_identical(filled: Store, tmp_path: Path, empty_database_url: str) -> None:
    archive = export_archive(filled, tmp_path / "a.zip")
    url = empty_database_url if empty_database_url.startswith("postgresql") else None
    with restore_archive(archive, tmp_path / "restored", database=url) as restored:
        assert restored.project == filled.project
        assert content(restored) == content(filled)
        first = next(restored.items.iterate()).id
        assert restored.proposals.get(first).instances.predicted_iou.tolist() == [0.1]
        assert restored.proposals.get(first).created_at == filled.proposals.get(first).created_at
        assert restored.jobs.list() == ()
        assert restored.secret("session") != filled.secret("session")
        assert export_archive(restored, tmp_path / "b.zip").read_bytes() == archive.read_bytes()
        item = restored.items.page().items[2]
        assert item.root is None
        (state,) = restored.annotations.objects(item.id)
        assert not save(restored, item.id, change(state.id, state.revision_id, label_id=2)).conflicts
    with Store.open(tmp_path / "restored") as restored:
        assert restored.items.get(item.id).objects == 1


def test_project_is_restored_beside_itself(tmp_path: Path, shared_postgres_url: str) -> None:
    with Store.create(tmp_path / "project", database=shared_postgres_url) as store:
        save(store, add_item(store), change())
        archive = export_archive(store, tmp_path / "a.zip")
        with restore_archive(archive, tmp_path / "copy", database=shared_postgres_url) as copy:
            assert copy.project.id != store.project.id
            assert content(copy) == content(store)


def test_archive_is_written_whole_or_not_at_all(filled: Store, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    target = export_archive(filled, tmp_path / "a.zip", events.append)
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]
    before = target.read_bytes()
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Exception, match="canceled"):
        export_archive(filled, target, cancellation.watch())
    assert target.read_bytes() == before
    with pytest.raises(OutputError):
        export_archive(filled, tmp_path / "photos" / "r.png" / "a.zip")
    (tmp_path / "photos" / "r.png").unlink()
    with pytest.raises(ImageError, match="relink"):
        export_archive(filled, target)
    assert target.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_damaged_image_is_not_exported(store: Store, tmp_path: Path) -> None:
    path = store.items.file(add_item(store, data=b"good"))
    path.write_bytes(b"evil")
    with pytest.raises(StoreError, match="damaged"):
        export_archive(store, tmp_path / "a.zip")


Members = dict[str, bytes]


def _rewritten(source: Path, edit: Callable[[Members], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    edit(members)
    target = source.with_name("edited.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            kind = zipfile.ZIP_STORED if name.startswith("blobs/") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=kind)
    return target


def _refused(archive: Path, folder: Path, message: str | None = None) -> None:
    with pytest.raises((DataError, StoreError), match=message):
        restore_archive(archive, folder)
    assert not folder.exists()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "source") as store:
        store.labels.replace(1, [Label(1, "cell")], "ada")
        first = change(label_id=1, prompt_events=(click(1, 2),))
        item = add_item(store, "a.png", b"image a")
        save(store, item, first, change(first.object_id, first.revision_id), change())
        add_item(store, "b.png", b"image b")
        store.proposals.put(item, "sam", Instances([square(1, 1)], (HEIGHT, WIDTH)))
        return export_archive(store, tmp_path / "a.zip")


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "blobs/../../evil", "blobs/" + "0" * 63, "tables/secrets.jsonl", "project.json", "C:\\evil",
     "blobs/" + "A" * 64, "blobs/", "tables/items.jsonl/x"],
)  # fmt: skip
def test_member_of_another_name_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    _refused(_rewritten(archive, lambda members: members.update({name: b"evil"})), tmp_path / "out", "has a member")
    assert not list(tmp_path.rglob("evil"))


def test_link_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a") as opened:
        info = zipfile.ZipInfo("blobs/" + "0" * 64)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/etc/passwd")
    _refused(archive, tmp_path / "out", "link")


def test_member_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("manifest.json", "{}")
    _refused(archive, tmp_path / "out", "has a member")


def test_bombs_are_refused(archive: Path, tmp_path: Path) -> None:
    def swell(members: Members) -> None:
        members["tables/items.jsonl"] += b" " * 50_000_000

    _refused(_rewritten(archive, swell), tmp_path / "out", "not unpacked")
    blob = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
        target.writestr("blobs/" + "0" * 64, b"\0" * 50_000_000)
    (tmp_path / "bomb.zip").write_bytes(blob.getvalue())
    _refused(tmp_path / "bomb.zip", tmp_path / "out", "not unpacked")


def test_overlapping_members_are_refused(archive: Path, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    raw = io.BytesIO(archive.read_bytes())
    with zipfile.ZipFile(raw, "a") as opened:
        for number in range(10):
            opened.writestr("blobs/" + f"{number}" * 64, data if number == 0 else b"")
        first = opened.getinfo("blobs/" + "0" * 64)
        for number in range(1, 10):
            other = opened.getinfo("blobs/" + f"{number}" * 64)
            other.header_offset, other.file_size = first.header_offset, first.file_size
            other.compress_size, other.CRC = first.compress_size, first.CRC
    (tmp_path / "overlap.zip").write_bytes(raw.getvalue())
    _refused(tmp_path / "overlap.zip", tmp_path / "out", "overlap")


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    _refused(tmp_path / "a.zip", tmp_path / "out", "no archive")
    _refused(tmp_path / "none.zip", tmp_path / "out", "no file")


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_flipped_and_cut_archives_are_refused_or_whole(archive: Path, tmp_path: Path, place: int) -> None:
    data = bytearray(archive.read_bytes())
    at = len(data) * place // 100
    (tmp_path / "cut.zip").write_bytes(data[:at])
    _refused(tmp_path / "cut.zip", tmp_path / "out")
    data[at] ^= 0x5A
    (tmp_path / "flipped.zip").write_bytes(data)
    try:
        restore_archive(tmp_path / "flipped.zip", tmp_path / "out").close()
    except (DataError, StoreError):
        assert not (tmp_path / "out").exists()
    else:  # in a byte that means nothing, such as a time
        with Store.open(tmp_path / "out") as restored, Store.open(tmp_path / "source") as source:
            assert content(restored) == content(source)


def _row(table: str, number: int, **values: Any) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        rows = [json.loads(line) for line in members[f"tables/{table}.jsonl"].splitlines()]
        rows[number].update(values)
        members[f"tables/{table}.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    return edit


def _repeat(table: str) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        members[f"tables/{table}.jsonl"] *= 2

    return edit


def _set(name: str, data: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: data})


@pytest.mark.parametrize(
    "edit",
    [
        *(_repeat(table) for table in ("label_schemas", "blobs", "items", "objects", "revisions", "prompt_events")),
        *(_set(f"tables/{table}.jsonl", b"") for table in ("label_schemas", "blobs", "items", "objects", "revisions")),
        *(_set("tables/items.jsonl", data) for data in (b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"id": 1}')),
        _set("manifest.json", b"{}"),
        _set("manifest.json", b'{"format": 1, "project": {"id": "x", "name": "a", "settings": {}}}'),
        _set("manifest.json", b'{"format": 2}'),
        _row("label_schemas", 1, version=7),
        _row("label_schemas", 1, labels=[{"id": 1}]),
        _row("label_schemas", 1, labels=[]),
        _row("blobs", 0, sha256="../../evil"),
        _row("blobs", 0, byte_count=1),
        _row("blobs", 0, width=-1),
        _row("items", 0, sha256="0" * 64),
        _row("items", 0, width=0),
        _row("items", 0, width=31),
        _row("items", 0, state="open"),
        _row("items", 0, id="x"),
        _row("items", 0, name="a\0"),
        _row("items", 0, created_at="yesterday"),
        _row("items", 0, created_at="2026-01-01T00:00:00"),
        _row("objects", 0, item=new_id()),
        _row("objects", 0, item=["x"]),
        _row("revisions", 0, counts="garbage~"),
        _row("revisions", 0, label_id=9),
        _row("revisions", 0, parent=new_id()),
        _row("revisions", 1, parent=5),
        _row("revisions", 2, parent="$first"),
        _row("revisions", 0, label_version=99),
        _row("revisions", 0, deleted=1),
        _row("revisions", 0, z=float("nan")),
        _row("revisions", 0, author=5),
        _row("prompt_events", 0, kind="rm"),
        _row("prompt_events", 0, revision="x"),
        _row("proposals", 0, instances="!"),
        _row("proposals", 0, instances="eJyrrgUAAXUA+Q=="),
        _row("proposals", 0, item="x"),
    ],
)
def test_contradictory_rows_are_refused(archive: Path, tmp_path: Path, edit: Callable[[Members], None]) -> None:
    _refused(_rewritten(archive, edit), tmp_path / "out")


def test_archive_of_a_newer_version_is_refused(archive: Path, tmp_path: Path) -> None:
    _refused(_rewritten(archive, _set("manifest.json", b'{"format": 2}')), tmp_path / "out", "newer version")


def test_image_of_another_content_is_refused(archive: Path, tmp_path: Path) -> None:
    def swap(members: Members) -> None:
        name = next(name for name in members if name.startswith("blobs/"))
        members[name] = b"image x"

    _refused(_rewritten(archive, swap), tmp_path / "out", "damaged")


def test_archive_is_not_restored_over_something(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        restore_archive(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
