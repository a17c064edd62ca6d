"""A project: a folder with a database and the bytes of its images, and all that can be done with them.

PROJECT/project.json      which project it is, and where its database is
PROJECT/project.sqlite    the database, unless it is PostgreSQL's
PROJECT/blobs/ab/abcd…    files by the sha256 of their bytes
PROJECT/backups/          copies of the database from before migrations
PROJECT/cache/            what can be computed again; the store leaves it alone
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs
import sqlalchemy as sa
from filelock import FileLock, Timeout

from segany.core.errors import OutputError, StoreError
from segany.core.files import path_errors, write_error, write_file
from segany.store.annotations import Annotations
from segany.store.blobs import Blobs
from segany.store.checks import check_json, check_text
from segany.store.database import SERVER_LOCK, Database, make_private, sqlite_url
from segany.store.items import Items
from segany.store.jobs import Jobs
from segany.store.labels import Labels
from segany.store.migrate import migrate, require_current
from segany.store.models import Models
from segany.store.proposals import ProposalStore
from segany.store.rows import now
from segany.store.snapshots import Snapshots
from segany.store.tables import LabelSchemaRow, ProjectRow, SecretRow
from segany.store.values import MAX_JSON, Project

PROJECT_FILE = "project.json"
_SQLITE_FILE = "project.sqlite"
_SQLITE_FILES = frozenset([_SQLITE_FILE, f"{_SQLITE_FILE}-wal", f"{_SQLITE_FILE}-shm"])
_OUR_FILES = _SQLITE_FILES | {"project.lock", "blobs", "backups", "cache"}


DATA_VARIABLE = "SEGANY_DATA"
"""The environment variable for the folder of the default project."""


def default_project() -> Path:
    """The folder of the project where none is named."""
    root = os.environ.get(DATA_VARIABLE)
    return (Path(root).expanduser() if root else platformdirs.user_data_path("segany")).absolute() / "project"


class Store:
    """An open project. Threads may share it; close it, or use it in a `with` statement.

    Attributes:
        folder: of the project.
        backup: the copy of the database that was made because opening it migrated it: a file, or the name of a
            schema of PostgreSQL; else None.
        items, labels, annotations, proposals, snapshots, models, jobs, blobs: what the project holds.
    """

    def __init__(self, folder: Path, database: Database, backup: Path | str | None, unlock: Callable[[], None]) -> None:
        """Use `open` or `create` instead."""
        self.folder, self.backup, self.database = folder, backup, database
        self._unlock = unlock
        self.blobs = Blobs(database, folder / "blobs")
        self.labels = Labels(database)
        self.items = Items(database, self.blobs)
        self.annotations = Annotations(database, self.labels)
        self.proposals = ProposalStore(database)
        self.snapshots = Snapshots(database)
        self.models = Models(database, self.blobs)
        self.jobs = Jobs(database)

    @staticmethod
    def is_project(folder: str | Path) -> bool:
        """Whether a folder is one of a project."""
        with path_errors(Path(folder), StoreError):
            return (Path(folder) / PROJECT_FILE).is_file()

    @classmethod
    def create(cls, folder: str | Path, name: str = "", *, database: str | None = None) -> Store:
        """Make a project in a folder that is empty or not there yet, and open it.

        Args:
            folder: of the project.
            name: for people; the folder's name where it is empty.
            database: URL of a PostgreSQL database, "postgresql+psycopg://…", which may hold other projects; SQLite
                in the folder where None. A password in it is not kept: it comes from `PGPASSWORD` or `~/.pgpass`.

        Raises:
            StoreError: the folder is a file or holds something else, or the database cannot be used.
            OutputError: the folder or the database cannot be written.
        """
        return make_project(Path(folder), name, database)

    @classmethod
    def open(cls, folder: str | Path, *, database: str | None = None, exclusive: bool = True) -> Store:
        """Open a project.

        Args:
            folder: of the project.
            database: its URL where it differs from the one the project was made with, in the password for instance.
            exclusive: hold the project, as a server does, and bring its database to this version, after a backup.
                Without, for a process that works for the server, the database must be of this version.

        Raises:
            StoreError: the folder is no project, another server holds it, or its database cannot be used: it is not
                there, damaged, or of a newer version.
            OutputError: it cannot be written.
        """
        place = Path(folder).absolute()
        project_id, known = _project_facts(place)
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(_locked(place)) if exclusive else None
            url = database or known
            if url is None and not (place / _SQLITE_FILE).is_file():
                raise StoreError(f"{place / _SQLITE_FILE} is missing. Restore it from a backup.")
            connected = opened.enter_context(_connected(place, url))
            backup = None
            if exclusive:
                backup = migrate(connected, place / "backups")
            else:
                require_current(connected)
            connected.project = _project_key(connected, project_id)
            if lock is not None:
                lock.hold_in(connected)
            return cls(place, connected, backup, opened.pop_all().close)

    def close(self) -> None:
        """Close the database and let others open the project."""
        self._unlock()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def project(self) -> Project:
        """The project as it is now."""
        with self.database.read() as session:
            row = session.get_one(ProjectRow, self.database.project)
            return Project(row.id, row.name, row.settings, row.label_version, row.created_at)

    def update_project(self, name: str | None = None, settings: Mapping[str, Any] | None = None) -> Project:
        """Rename the project, and set some of its settings; those not named stay.

        Raises:
            DataError: the name is empty or too long, or the settings are not JSON.
        """
        if name is not None:
            check_text(name, "The name of a project", 1, 200)
        with self.database.write() as session:
            row = session.get_one(ProjectRow, self.database.project)
            merged = {**row.settings, **(settings or {})}
            check_json(merged, "The settings of a project", MAX_JSON)
            row.name, row.settings = name or row.name, merged
        return self.project

    def secret(self, name: str) -> bytes:
        """32 random bytes, the same ones whenever the project is open and others in every project."""
        with self.database.write() as session:
            row = session.get(SecretRow, (self.database.project, name))
            if row is None:
                row = SecretRow(project=self.database.project, name=name, value=secrets.token_bytes(32))
                session.add(row)
            return row.value


def make_project(
    folder: Path,
    name: str,
    database: str | None,
    project_id: str | None = None,
    fill: Callable[[Store], None] | None = None,
) -> Store:
    """Do what `Store.create` does, and fill the project. Where that fails, nothing is left of it.

    Args:
        folder, name, database: as for `Store.create`.
        project_id: the project gets it unless the database has a project of that id.
        fill: is called with the open project, which is one for others only afterwards.
    """
    place = folder.absolute()
    check_text(name, "The name of a project", 0, 200)
    existed = _check_empty(place)
    _make_folder(place)
    with contextlib.ExitStack() as opened:
        lock = opened.enter_context(_locked(place))
        _remove_files(place)  # of an attempt that was interrupted
        connected = opened.enter_context(_connected(place, database))
        try:
            migrate(connected, place / "backups")
            connected.project, project_id = _insert_project(connected, project_id, name or place.name or "project")
            lock.hold_in(connected)
            store = Store(place, connected, None, opened.close)
            if fill is not None:
                fill(store)
            facts = {"format": 1, "id": project_id, "database": _without_password(connected) if database else None}
            write_file(place / PROJECT_FILE, json.dumps(facts, indent=2).encode())
        except BaseException:
            with contextlib.suppress(Exception):
                _delete_project(connected)
            connected.close()
            _remove_files(place)
            if not existed:
                shutil.rmtree(place, ignore_errors=True)
            raise
        store._unlock = opened.pop_all().close
        return store


def _check_empty(place: Path) -> bool:
    """Whether the folder is there; it must hold nothing but what an interrupted attempt left."""
    with path_errors(place, StoreError):
        if place.exists() and not place.is_dir():
            raise StoreError(f"{place} is a file. Choose another folder for the project.")
        present = {path.name for path in place.iterdir()} if place.exists() else set()
        existed = place.exists()
    if PROJECT_FILE in present:
        raise StoreError(f"{place} is a project already. Open it, or choose another folder.")
    if present - _OUR_FILES:
        raise StoreError(f"{place} is not empty: it holds {min(present - _OUR_FILES)!r}. Choose another folder.")
    return existed


def _remove_files(place: Path) -> None:
    """Remove what a project that was never finished has in its folder."""
    for name in _SQLITE_FILES:
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / "blobs", ignore_errors=True)


def _delete_project(database: Database) -> None:
    if database.project:
        with database.write() as session:
            session.execute(sa.delete(LabelSchemaRow).where(LabelSchemaRow.project == database.project))
            session.execute(sa.delete(ProjectRow).where(ProjectRow.key == database.project))


class _Lock:
    """What keeps a second server out: a file for those on this machine, and a lock in PostgreSQL for all."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.cleanup = contextlib.ExitStack()

    def hold_in(self, database: Database) -> None:
        """Hold the project in the database too.

        Raises:
            StoreError: another server holds it, from another folder or machine.
        """
        if database.is_sqlite:
            return
        with database.errors():
            connection = self.cleanup.enter_context(database.engine.connect())
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # closing it ends the lock; the pool would keep both
            taken = connection.execute(sa.select(sa.func.pg_try_advisory_lock(SERVER_LOCK, database.project)))
            if not taken.scalar_one():
                raise _in_use(self.place)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[_Lock]:
    file = FileLock(place / "project.lock", mode=0o600)
    try:
        file.acquire(timeout=0)
    except Timeout:
        raise _in_use(place) from None
    except OSError as error:
        raise write_error(place / "project.lock", error) from error
    lock = _Lock(place)
    try:
        yield lock
    finally:
        lock.cleanup.close()
        file.release()


def _in_use(place: Path) -> StoreError:
    return StoreError(f"The project in {place} is open in another server. Use that one, or stop it first.")


@contextlib.contextmanager
def _connected(place: Path, url: str | None) -> Iterator[Database]:
    if url is None:
        try:
            make_private(place / _SQLITE_FILE)
        except OSError as error:
            raise write_error(place / _SQLITE_FILE, error) from error
    database = Database(url or sqlite_url(place / _SQLITE_FILE))
    try:
        yield database
    finally:
        database.close()


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        if not os.access(place, os.W_OK):
            raise OutputError(f"{place} may not be written. Choose another folder for the project.")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise write_error(place, error) from error


def _project_facts(place: Path) -> tuple[str, str | None]:
    """The id of the project in a folder, and the URL of its database unless that is in the folder."""
    path = place / PROJECT_FILE
    with path_errors(place, StoreError):
        if place.exists() and not place.is_dir():
            raise StoreError(f"{place} is a file, not the folder of a project.")
        if not path.is_file():
            raise StoreError(f"{place} is no project: it has no {PROJECT_FILE}.")
        text = path.read_bytes()
    try:
        facts = json.loads(text)
        version, project_id, url = facts["format"], str(uuid.UUID(facts["id"])), facts["database"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error!r}. Restore it from a backup.") from error
    if version != 1:
        raise StoreError(f"{path} was written by a newer version of segany. Upgrade: pip install --upgrade segany.")
    return project_id, url


def _without_password(database: Database) -> str:
    url = database.engine.url
    return sa.URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()


def _insert_project(database: Database, project_id: str | None, name: str) -> tuple[int, str]:
    """Add a project without items, and return its key and its id."""
    with database.write() as session:
        taken = session.scalar(sa.select(ProjectRow.key).where(ProjectRow.id == project_id))
        row = ProjectRow(
            id=project_id if project_id and taken is None else str(uuid.uuid4()), name=name, settings={},
            label_version=1, created_at=now(),
        )  # fmt: skip
        session.add(row)
        session.flush()
        session.add(LabelSchemaRow(project=row.key, version=1, labels=[], author="", created_at=now()))
        return row.key, row.id


def _project_key(database: Database, project_id: str) -> int:
    with database.read() as session:
        key = session.scalar(sa.select(ProjectRow.key).where(ProjectRow.id == project_id))
    if key is None:
        raise StoreError(f"{database.where} holds no project {project_id}. Check the URL of the database.")
    return key
