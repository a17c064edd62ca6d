"""The connection to SQLite or PostgreSQL, transactions, and what their failures mean.

Both behave alike: a project has one writer at a time, and a reader sees one state from the beginning of its
transaction to the end. On SQLite, `BEGIN IMMEDIATE` and the write-ahead log do that; on PostgreSQL, an advisory lock
for writers and REPEATABLE READ for readers.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from segany.core.errors import OutputError, StoreError

BUSY_SECONDS = 30
"""How long a transaction waits for another process that writes."""

WRITER_LOCK = 0x5E6A
"""Class of PostgreSQL's advisory locks of writers; the second number is the project's key, 0 for migrations."""

SERVER_LOCK = 0x5E6B
"""Class of the advisory locks of servers, which hold a project for themselves."""

_DISK_ERRORS = ("disk is full", "disk i/o error", "readonly database", "read-only", "no space left", "file too large")


class Database:
    """One database. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Connect when first used.

        Args:
            url: "sqlite:///PATH" or "postgresql+psycopg://…".

        Raises:
            StoreError: the URL names another kind of database, or its driver is not installed.
        """
        self.project = 0  # key of the project that writers lock; 0 until it is known
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.where = self.engine.url.database if self.is_sqlite else self.engine.url.render_as_string()
        self._writing = threading.RLock()  # threads queue here, since SQLite only polls

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and changes nothing."""
        with self.errors(), Session(self.engine, autoflush=False) as session:
            if not self.is_sqlite:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that no other writer of the project runs beside; committed at the end, or all undone."""
        with self.errors(), self._writing, Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"segany_write": True})
            if not self.is_sqlite:
                self.lock_writers(session.connection())
            yield session
            session.commit()

    def lock_writers(self, connection: sa.Connection) -> None:
        """Wait until no other writer of the project is left, until the end of the transaction; for PostgreSQL."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK, self.project)))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what the database raises as segany's errors, where a person can do something about it."""
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).strip() or type(error.orig).__name__
            text = reason.lower()
            if any(words in text for words in _DISK_ERRORS):
                raise OutputError(
                    f"{self.where} could not be written: {reason}. Free some space or make it writable, and save "
                    "again: nothing of this was stored."
                ) from error
            if "malformed" in text or "not a database" in text:
                raise StoreError(f"{self.where} is damaged: {reason}. Restore it from a backup.") from error
            if "locked" in text or "unable to open" in text or error.connection_invalidated or _is_connection(error):
                raise StoreError(
                    f"{self.where} cannot be used: {reason}. Check that it is there and running."
                ) from error
            raise


def _is_connection(error: DBAPIError) -> bool:
    """Whether PostgreSQL could not be reached, or ended the connection."""
    code = getattr(error.orig, "sqlstate", "not of PostgreSQL") or ""
    return type(error.orig).__name__ == "OperationalError" and (not code or code[:2] in ("08", "28", "3D", "57"))


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(f"{parsed.get_backend_name()} is no database for a project. Use SQLite or PostgreSQL.")
        dumps = partial(json.dumps, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        if parsed.get_backend_name() == "postgresql":
            return sa.create_engine(
                parsed, json_serializer=dumps, pool_pre_ping=True, pool_size=8, max_overflow=24,
                connect_args={"connect_timeout": 10},
            )  # fmt: skip
        engine = sa.create_engine(
            parsed, json_serializer=dumps, pool_size=8, max_overflow=24,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )  # fmt: skip
    except SQLAlchemyError as error:
        raise StoreError(f"{url.rsplit('@', maxsplit=1)[-1]!r} is no URL of a database: {error}.") from error
    except ImportError as error:
        raise StoreError(
            f'PostgreSQL needs its driver ({error}). Install it with: pip install "segany[postgres]"'
        ) from error
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",  # what was acknowledged is there after a power failure too
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "temp_store=MEMORY",
        "cache_size=-32768",
    ):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    is_writer = connection.get_execution_options().get("segany_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file, whatever characters its path has."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def make_private(path: Path) -> None:
    """Let nobody else read or write a file, which is made if it is not there. SQLite's other files follow it."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
