from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store_for_tests import add_item, change, content, new_id, save

from segany import DataError, OutputError, StoreError
from segany.store import Store


def test_created_project_opens_again(tmp_path: Path, database_url: str | None) -> None:
    with Store.create(tmp_path / "project", "Cells", database=database_url) as store:
        project = store.project
    assert (project.name, project.settings, project.label_version) == ("Cells", {}, 1)
    assert Store.is_project(tmp_path / "project")
    with Store.open(tmp_path / "project") as store:
        assert store.project == project
        assert store.backup is None


def test_project_is_named_after_its_folder(tmp_path: Path) -> None:
    with Store.create(tmp_path / "mice") as store:
        assert store.project.name == "mice"


def test_settings_and_name_change(store: Store) -> None:
    store.update_project(settings={"model": "mobile_sam", "opacity": 0.5})
    store.update_project(name="Mice", settings={"opacity": 0.7})
    assert store.project.name == "Mice"
    assert store.project.settings == {"model": "mobile_sam", "opacity": 0.7}
    with pytest.raises(DataError, match="JSON"):
        store.update_project(settings={"a": object()})
    with pytest.raises(DataError, match="characters"):
        store.update_project(name="")


def test_secrets_stay_and_differ(tmp_path: Path, database_url: str | None) -> None:
    with Store.create(tmp_path / "one", database=database_url) as one:
        key = one.secret("session")
        assert len(key) == 32
        assert one.secret("session") == key
        assert one.secret("other") != key
    with Store.open(tmp_path / "one") as one, Store.create(tmp_path / "two", database=database_url) as two:
        assert one.secret("session") == key != two.secret("session")


def test_nobody_else_may_read_a_project(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        add_item(store)
        store.secret("session")
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
        files = [path for path in store.folder.iterdir() if path.name.startswith("project.sqlite")]
        assert {path.name for path in files} >= {"project.sqlite", "project.sqlite-wal"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_projects_of_one_database_do_not_see_each_other(tmp_path: Path, shared_postgres_url: str) -> None:
    with (
        Store.create(tmp_path / "one", database=shared_postgres_url) as one,
        Store.create(tmp_path / "two", database=shared_postgres_url) as two,
    ):
        item, made = add_item(one), change()
        save(one, item, made)
        job = one.jobs.submit("export", {}, "key")
        assert two.items.page().total == 0
        for look in (
            lambda: two.items.get(item),
            lambda: two.items.file(item),
            lambda: two.annotations.objects(item),
            lambda: two.annotations.replay(made.revision_id),
            lambda: two.proposals.get(item),
            lambda: two.jobs.get(job.id),
            lambda: save(two, item, change()),
        ):
            with pytest.raises(StoreError, match="no"):
                look()
        assert two.jobs.claim(["export"], 10) is None
        assert two.jobs.submit("export", {}, "key").id != job.id
        other = add_item(two)
        assert not save(two, other, made).conflicts  # ids of one project mean nothing in another


@pytest.mark.parametrize("exists", [True, False])
def test_folder_that_is_a_file(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file" if exists else tmp_path / "file" / "project"
    for attempt in (Store.create, Store.open):
        with pytest.raises((StoreError, OutputError), match=r"file|no project"):
            attempt(place)
    assert (tmp_path / "file").read_text() == "x"


def test_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"holds 'photo.jpg'"):
        Store.create(tmp_path)
    with pytest.raises(StoreError, match="is no project"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_project_is_not_made_twice(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project"), pytest.raises(StoreError, match="project already"):
        Store.create(tmp_path / "project")


def test_interrupted_creation_is_made_good(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        add_item(store)
    (tmp_path / "project" / "project.json").unlink()  # it is written last
    with Store.create(tmp_path / "project") as store:
        assert store.items.page().total == 0


def test_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Store.create(tmp_path / "project", database=f"postgresql+psycopg://nobody@/none?host={tmp_path}")
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("url", ["mysql://host/name", "nonsense", "sqlite+nothing:///x", "postgresql+nothing://h/x"])
def test_other_databases_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError):
        Store.create(tmp_path / "project", database=url)


def test_second_server_is_refused(tmp_path: Path, database_url: str | None) -> None:
    with Store.create(tmp_path / "project", database=database_url) as store:
        with pytest.raises(StoreError, match="open in another server"):
            Store.open(tmp_path / "project")
        with Store.open(tmp_path / "project", exclusive=False) as worker:
            assert worker.project == store.project
    with Store.open(tmp_path / "project"):
        pass


def test_second_server_from_another_folder_is_refused(tmp_path: Path, shared_postgres_url: str) -> None:
    with Store.create(tmp_path / "one", database=shared_postgres_url):
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "project.json").write_bytes((tmp_path / "one" / "project.json").read_bytes())
        with pytest.raises(StoreError, match="open in another server"):
            Store.open(tmp_path / "two")
    with Store.open(tmp_path / "two"):
        pass


def test_killed_server_locks_nobody_out(tmp_path: Path, database_url: str | None) -> None:
    Store.create(tmp_path / "project", database=database_url).close()
    program = (
        "import os, sys\n"
        "from segany.store import Store\n"
        "from tests.store_for_tests import add_item, change, save\n"
        "store = Store.open(sys.argv[1])\n"
        "item = add_item(store)\n"
        "save(store, item, change())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "project")], check=False)
    assert run.returncode == -9
    with Store.open(tmp_path / "project") as store:
        (item,) = store.items.page().items
        assert len(store.annotations.objects(item.id)) == 1


def test_password_is_not_kept(tmp_path: Path, shared_postgres_url: str) -> None:
    url = shared_postgres_url.replace("segany@", "segany:s3cret@")
    Store.create(tmp_path / "project", database=url).close()
    assert "s3cret" not in (tmp_path / "project" / "project.json").read_text()
    with Store.open(tmp_path / "project", database=url):
        pass


def test_database_without_the_project(tmp_path: Path, database_url: str | None) -> None:
    Store.create(tmp_path / "project", database=database_url).close()
    facts = json.loads((tmp_path / "project" / "project.json").read_text())
    (tmp_path / "project" / "project.json").write_text(json.dumps({**facts, "id": new_id()}))
    with pytest.raises(StoreError, match="holds no project"):
        Store.open(tmp_path / "project")


def test_missing_database_is_not_made_anew(tmp_path: Path) -> None:
    Store.create(tmp_path / "project").close()
    (tmp_path / "project" / "project.sqlite").unlink()
    with pytest.raises(StoreError, match="missing"):
        Store.open(tmp_path / "project")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ("[]", "damaged"), ('{"format": 1, "id": "x", "database": null}', "damaged"),
     ('{"format": 2, "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "database": null}', "newer version")],
)  # fmt: skip
def test_damaged_project_file(tmp_path: Path, text: str, message: str) -> None:
    Store.create(tmp_path / "project").close()
    (tmp_path / "project" / "project.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        Store.open(tmp_path / "project")


def test_damaged_database(tmp_path: Path) -> None:
    Store.create(tmp_path / "project").close()
    (tmp_path / "project" / "project.sqlite").write_bytes(b"no database at all, but long enough" * 200)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path / "project")


@contextlib.contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """To SQLite and to everything else, a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_what_was_saved(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        item, first = add_item(store), change()
        save(store, item, first)
        before = content(store)
        large = [change(attributes={"text": "x" * 500_000}) for _ in range(4)]
        with _files_no_larger_than((store.folder / "project.sqlite-wal").stat().st_size + 100_000):
            with pytest.raises(OutputError, match="could not be written"):
                save(store, item, *large)
            with pytest.raises(OutputError, match="could not be written"):
                store.blobs.put(b"x" * 10_000_000, "image/png")
            assert content(store) == before
        assert content(store) == before
        assert len(save(store, item, *large).saved) == 4  # there is space again


def test_locked_database_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segany.store.database.BUSY_SECONDS", 0.1)
    with Store.create(tmp_path / "project") as store:
        other = sqlite3.connect(store.folder / "project.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            add_item(store)
        other.close()
        add_item(store)


def test_missing_database_library_is_named() -> None:
    program = "import sys; sys.modules['sqlalchemy'] = None; import segany.store"
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "MissingExtraError: Projects need a database" in run.stderr
    assert 'pip install "segany[serve]"' in run.stderr
