"""Bringing a database to the tables of this version, after a backup.

The migrations are in `migrations/versions`. Each is applied exactly once, all of them in one transaction, so that an
interrupted migration leaves the database as it was.
"""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa

from segany.core.errors import OutputError, StoreError
from segany.core.files import replacing
from segany.store.database import Database

REVISION = "0003"
"""The newest migration, which this version's tables are."""

_MIGRATIONS = Path(__file__).parent / "migrations"


def revision_of(database: Database) -> str | None:
    """The migration that a database is at; None for an empty one.

    Raises:
        StoreError: it holds tables of something else.
    """
    with database.errors(), database.engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        if "alembic_version" in tables and "revisions" in tables:
            return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())
        if tables:
            raise StoreError(
                f"{database.where} holds tables that are not segany's ({tables[0]}). Use an empty database."
            )
        return None


def require_current(database: Database) -> None:
    """Raise `StoreError` unless the database is at this version's tables."""
    found = revision_of(database)
    if found != REVISION:
        raise StoreError(f"{database.where} is at version {found}, not {REVISION}. Open the project by itself first.")


def migrate(database: Database, backups: Path) -> Path | str | None:
    """Bring a database to this version's tables.

    Args:
        database: it may be empty.
        backups: folder for the copy of a SQLite database; PostgreSQL's is a schema of the database.

    Returns:
        The backup: a file, or the name of a schema. None where nothing was to be done or the database was empty.

    Raises:
        StoreError: the database is of a newer version, or holds something else.
        OutputError: there is no space for the backup.
    """
    found = revision_of(database)
    if found == REVISION:
        return None
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"{database.where} was written by a newer version of segany: its tables are at {found}, and this version "
            f"knows {REVISION}. Upgrade segany: pip install --upgrade segany."
        )
    backup = None if found is None else _back_up(database, backups, found)
    with database.errors(), database.engine.connect() as connection:
        if database.is_sqlite:  # tables may be made anew meanwhile; what refers to what is checked at the end
            connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        with connection.execution_options(segany_write=True).begin():
            if not database.is_sqlite:
                database.lock_writers(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, REVISION)
            if database.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise StoreError(f"{database.where} is damaged: rows refer to others that are not there.")
        connection.invalidate()  # the next one checks foreign keys again
    return backup


def _back_up(database: Database, backups: Path, revision: str) -> Path | str:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
    if not database.is_sqlite:
        return _copy_tables(database, f"segany_backup_{revision}_{stamp.lower()}")
    path = backups / f"project-{revision}-{stamp}.sqlite"
    try:
        with (
            replacing(path) as temporary,
            contextlib.closing(sqlite3.connect(str(database.where))) as source,
            contextlib.closing(sqlite3.connect(temporary)) as target,
        ):
            temporary.chmod(0o600)
            source.backup(target)
    except sqlite3.Error as error:
        raise OutputError(f"{path}, the backup before an upgrade, could not be written: {error}.") from error
    return path


def _copy_tables(database: Database, schema: str) -> str:
    """Copy all tables into another schema of a PostgreSQL database."""
    with database.errors(), database.engine.begin() as connection:
        quote = connection.dialect.identifier_preparer.quote
        connection.execute(sa.text(f"CREATE SCHEMA {quote(schema)}"))
        for table in sa.inspect(connection).get_table_names():
            connection.execute(sa.text(f"CREATE TABLE {quote(schema)}.{quote(table)} AS TABLE {quote(table)}"))
    return schema
