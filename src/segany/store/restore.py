"""Making a project of an archive, which may come from anybody.

Nothing in an archive is taken for a path: only the names that `export_archive` writes are read, and files are stored
by their sha256. Rows pass the same checks as changes that are saved. What follows from other rows, such as boxes and
which revision is an object's state, is worked out again. How much is read is limited by the size of the archive.
"""

from __future__ import annotations

import contextlib
import errno
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import DataError, SeganyError, StoreError
from segany.core.files import path_errors
from segany.core.progress import ProgressCallback, report
from segany.core.zip_files import checked_members
from segany.store.archive import ALWAYS, FORMAT, TABLES
from segany.store.checks import check_id, check_json, check_text
from segany.store.restoring import BLOB, MAX_LINE, Restoring, parse_time, row_errors
from segany.store.store import Store, make_project
from segany.store.tables import ItemRow, LabelSchemaRow, ProjectRow
from segany.store.values import MAX_JSON

_CHUNK = 1 << 20

_Json: TypeAlias = dict[str, Any]


def restore_archive(
    path: str | Path, folder: str | Path, *, database: str | None = None, progress: ProgressCallback | None = None
) -> Store:
    """Make the project of an archive in a folder, and open it.

    Ids, times, authors and the history are those of the archive. The project's own id is too, unless the PostgreSQL
    database has a project of that id.

    Args:
        path: of the archive.
        folder: as for `Store.create`.
        database: as for `Store.create`.
        progress: is told of every image.

    Raises:
        DataError: it is no archive of a project, or a damaged or malicious one. Nothing is left behind.
        StoreError: the archive is of a newer version, or as for `Store.create`.
        OutputError: the project cannot be written.
    """
    source, place = Path(path), Path(folder)
    with _readable(source) as archive:
        members = _members(archive, source)
        facts = _manifest(archive, members)

        def fill(store: Store) -> None:
            _write_blobs(store, archive, members, progress)
            with store.database.write() as session:
                Restoring(session, store.database.project, archive, members).run(facts)

        return make_project(place, facts["name"], database, project_id=facts["id"], fill=fill)


def restore_into(store: Store, path: str | Path, *, progress: ProgressCallback | None = None) -> bool:
    """Make an open project that holds nothing yet that of an archive. It keeps its own id.

    Args:
        store: the project.
        path: of the archive.
        progress: is told of every image.

    Returns:
        Whether it was restored; False where the project has all items of the archive already.

    Raises:
        DataError: as for `restore_archive`, or the project holds something else. Nothing was changed.
        StoreError, OutputError: as for `restore_archive`.
    """
    source = Path(path)
    with _readable(source) as archive:
        members = _members(archive, source)
        facts = _manifest(archive, members)
        with store.database.read() as session:
            if _is_filled(session, store.database.project, archive, members):
                return False
        _write_blobs(store, archive, members, progress)
        with store.database.write() as session:
            project = store.database.project
            if _is_filled(session, project, archive, members):
                return False
            Restoring(session, project, archive, members).run(facts)
            session.execute(sa.update(ProjectRow).where(ProjectRow.key == project).values(name=facts["name"]))
        return True


def _is_filled(session: Session, project: int, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> bool:
    """Whether a project has all items of an archive.

    Raises:
        DataError: it has not, but holds something else.
    """
    query = sa.select(LabelSchemaRow).where(LabelSchemaRow.project == project)
    known = set(session.scalars(sa.select(ItemRow.id).where(ItemRow.project == project)))
    if not known and all(row.version == 1 and not row.labels for row in session.scalars(query)):
        return False
    with row_errors("the rows of items"), archive.open(members["tables/items.jsonl"]) as file:
        while line := file.readline(MAX_LINE + 1):
            if json.loads(line)["id"] not in known:
                raise DataError(
                    "The archive of a project is restored into an empty project, but this one has images or labels of "
                    "its own. Make a new project for it."
                )
    return True


def _write_blobs(
    store: Store, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], progress: ProgressCallback | None
) -> None:
    blobs = [item for item in members.items() if BLOB.fullmatch(item[0])]
    for done, (name, info) in enumerate(blobs):
        with archive.open(info) as file:
            store.blobs.write_file(name.removeprefix("blobs/"), _chunks(file))
        report(progress, "images", done + 1, len(blobs), "images")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@contextlib.contextmanager
def _readable(source: Path) -> Iterator[zipfile.ZipFile]:
    with path_errors(source, DataError):
        if not source.is_file():
            raise DataError(f"There is no file {source}. Check the path.")
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except SeganyError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise DataError(f"{source} is no archive of a project, or damaged: {error}.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which zipfile gets where a member claims to begin before the file
            raise
        raise DataError(f"{source} is no archive of a project, or damaged: {error}.") from error


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """The members by name; none but those of an archive of ours, of which none is a bomb."""
    allowed = {"manifest.json", *(f"tables/{name}.jsonl" for name in TABLES)}
    members: dict[str, zipfile.ZipInfo] = {}
    for info in checked_members(archive, source, str(source)):
        is_blob = BLOB.fullmatch(info.filename) is not None
        if info.filename in members or not (is_blob or info.filename in allowed):
            raise DataError(f"{source} has a member {info.filename[:100]!r} that no archive of a project has.")
        if is_blob and info.file_size > info.compress_size:  # images are stored as they are
            raise DataError(f"{source}: {info.filename} would become {info.file_size:,} bytes. It is not unpacked.")
        members[info.filename] = info
    missing = {"manifest.json", *(f"tables/{name}.jsonl" for name in ALWAYS)} - set(members)
    if missing:
        raise DataError(f"{source} is no archive of a project: it has no {min(missing)}.")
    return members


def _manifest(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> _Json:
    with row_errors("manifest.json"):
        facts = json.loads(archive.read(members["manifest.json"]))
        if int(facts["format"]) > FORMAT:
            raise StoreError("The archive was written by a newer version of segany. Upgrade segany.")
        project: _Json = facts["project"]
        check_id(project["id"], "The id of the project")
        check_text(project["name"], "The name of the project", 1, 200)
        check_json(project["settings"], "The settings of the project", MAX_JSON)
        return {**project, "created_at": parse_time(project["created_at"])}
