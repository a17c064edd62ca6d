"""Databases of every released schema are upgraded with their rows. The `filled_*.json` are never changed."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.store_for_tests import add_item, change, new_id, save

import segany.store
from segany import StoreError
from segany.store import Store
from segany.store.migrate import REVISION
from segany.store.tables import Base

MIGRATIONS = Path(segany.store.__file__).parent / "migrations"
FILLED = Path(__file__).parent
CONFIG = Config()
CONFIG.set_main_option("script_location", str(MIGRATIONS))
REVISIONS = [script.revision for script in ScriptDirectory.from_config(CONFIG).walk_revisions()][::-1]
OLDER = [revision for revision in REVISIONS if revision != REVISION]


def test_newest_migration_is_the_one_that_is_opened() -> None:
    assert REVISIONS[-1] == REVISION


def test_migrations_make_the_tables_of_this_version(tmp_path: Path, empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.upgrade(CONFIG, "head")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def _fill(url: str, revision: str) -> dict[str, list[dict[str, Any]]]:
    """A database as that revision made it, with the rows of a file. Returns the rows."""
    rows: dict[str, list[dict[str, Any]]] = json.loads((FILLED / f"filled_{revision}.json").read_text())
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.upgrade(CONFIG, revision)
        tables = sa.MetaData()
        tables.reflect(connection)
        for name, values in rows.items():
            connection.execute(tables.tables[name].insert(), [_typed(tables.tables[name], row) for row in values])
            if engine.dialect.name == "postgresql" and "key" in values[0]:  # keys that were given do not count
                connection.execute(sa.text(f"SELECT setval('{name}_key_seq', {len(values)})"))
    engine.dispose()
    return rows


def _typed(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    """A row of JSON as the columns have it."""
    typed = dict(row)
    for name, value in row.items():
        kind = table.c[name].type
        if value is None:
            continue
        if isinstance(kind, sa.DateTime):
            typed[name] = datetime.fromisoformat(value)
        elif isinstance(kind, sa.LargeBinary):
            typed[name] = bytes.fromhex(value)
        elif isinstance(kind, sa.CHAR):  # a UUID in SQLite
            typed[name] = value.replace("-", "")
    return typed


def _project(folder: Path, url: str, projects: list[dict[str, Any]]) -> None:
    folder.mkdir()
    database = url if url.startswith("postgresql") else None
    facts = {"format": 1, "id": projects[0]["id"], "database": database}
    (folder / "project.json").write_text(json.dumps(facts))
    if database is None:
        Path(url.removeprefix("sqlite:///")).rename(folder / "project.sqlite")


@pytest.mark.parametrize("revision", OLDER)
def test_filled_database_is_upgraded(tmp_path: Path, empty_database_url: str, revision: str) -> None:
    rows = _fill(empty_database_url, revision)
    _project(tmp_path / "project", empty_database_url, rows["projects"])
    with pytest.raises(StoreError, match="Open the project by itself"):
        Store.open(tmp_path / "project", exclusive=False)
    with Store.open(tmp_path / "project") as store:
        assert store.project.name == "Mice"
        assert store.labels.current().labels[0].name == "cell"
        (item,) = store.items.page().items
        assert (item.name, item.state, item.objects) == ("mouse.png", "in_progress", 1)
        (state,) = store.annotations.objects(item.id)
        assert (state.counts, state.label_id, state.author) == ("n13a0000000000R=", 1, "ada")
        (revision_entry,) = store.annotations.history(item.id, state.id)
        assert revision_entry.prompt_events[0].payload == {"xy": [3, 4]}
        assert store.jobs.list()[0].kind == "export"
        assert len(save(store, item.id, change(state.id, state.revision_id)).saved) == 1
        backup = store.backup
    assert backup is not None
    if isinstance(backup, Path):
        assert backup.stat().st_mode & 0o777 == 0o600
        with sqlite3.connect(backup) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)
            assert connection.execute("SELECT count(*) FROM revisions").fetchone() == (1,)
        connection.close()
    else:
        engine = sa.create_engine(empty_database_url)
        with engine.connect() as connection:
            assert connection.scalar(sa.text(f"SELECT version_num FROM {backup}.alembic_version")) == revision
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {backup}.revisions")) == 1
        engine.dispose()
    with Store.open(tmp_path / "project") as store:
        assert store.backup is None


@pytest.mark.parametrize("revision", OLDER)
def test_failed_upgrade_changes_nothing(tmp_path: Path, empty_database_url: str, revision: str) -> None:
    rows = _fill(empty_database_url, revision)
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:  # in the way of the newest migration
        connection.execute(sa.text("CREATE TABLE snapshots (other integer)"))
    engine.dispose()
    _project(tmp_path / "project", empty_database_url, rows["projects"])
    with pytest.raises((StoreError, sa.exc.SQLAlchemyError)):
        Store.open(tmp_path / "project")
    url = empty_database_url if empty_database_url.startswith("p") else f"sqlite:///{tmp_path}/project/project.sqlite"
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == revision
        assert connection.scalar(sa.text("SELECT count(*) FROM prompt_events")) == 1
    engine.dispose()


def test_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        add_item(store)
    with sqlite3.connect(tmp_path / "project" / "project.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for exclusive in (True, False):
        with pytest.raises(StoreError, match=r"9999.*" + REVISION):
            Store.open(tmp_path / "project", exclusive=exclusive)
    assert not (tmp_path / "project" / "backups").exists()


def test_database_of_something_else_is_refused(tmp_path: Path, empty_database_url: str) -> None:
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (id int)"))
    engine.dispose()
    _project(tmp_path / "project", empty_database_url, [{"id": new_id()}])
    with pytest.raises(StoreError, match=r"not segany's \(users\)"):
        Store.open(tmp_path / "project")


@pytest.mark.parametrize("table", ["revisions", "prompt_events"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET model_version = 'x'"])
def test_history_is_append_only(tmp_path: Path, empty_database_url: str, table: str, statement: str) -> None:
    _fill(empty_database_url, "0001")
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.upgrade(CONFIG, "head")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement.format(table)))
    engine.dispose()
