"""Making a project of an archive, which may come from anybody.

Nothing in an archive is taken for a path: only the names that `export_archive` writes are read, and files are stored
by their sha256. Rows pass the same checks as changes that are saved. What follows from other rows, such as boxes and
which revision is an object's state, is worked out again. How much is read is limited by the size of the archive.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias, get_args

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from segany.core.arrays import SizeHW
from segany.core.errors import DataError, SeganyError, StoreError
from segany.core.files import path_errors
from segany.core.progress import ProgressCallback, report
from segany.store.archive import FORMAT, TABLES
from segany.store.checks import check_choice, check_id, check_json, check_number, check_text
from segany.store.items import name_key, name_order, split_of
from segany.store.labels import check_labels, labels_from_json, labels_to_json
from segany.store.proposals import pack, unpack
from segany.store.revisions import MAX_COUNTS, Change, PromptEvent
from segany.store.saving import measure
from segany.store.store import Store, make_project
from segany.store.tables import (
    BlobRow,
    HeadRow,
    ItemLabelRow,
    ItemRow,
    LabelSchemaRow,
    ObjectRow,
    ProjectRow,
    PromptEventRow,
    ProposalsRow,
    RevisionRow,
)
from segany.store.values import MAX_JSON, ItemState, NewItem

MAX_RATIO = 200
"""How much larger than in the archive a table may be; JSON of this kind is about ten times as large."""

MAX_LINE = 2 * MAX_COUNTS + 8 * MAX_JSON
"""Bytes of a row."""

_AT_ONCE = 500  # rows of an insert
_CHUNK = 1 << 20
_BLOB = re.compile(r"blobs/[0-9a-f]{64}")

_ITEM_FACTS = ("name", "sha256", "byte_count", "media_type", "width", "height")
_CHANGE_FACTS = ("counts", "label_id", "attributes", "z", "source", "deleted", "active_ms", "model_version")
_EVENT_FACTS = ("id", "sequence", "kind", "payload", "model_version", "candidate", "latency_ms")

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
    with path_errors(source, DataError):
        if not source.is_file():
            raise DataError(f"There is no file {source}. Check the path.")
    with _readable(source) as archive:
        members = _members(archive, source)
        facts = _manifest(archive, members)

        def fill(store: Store) -> None:
            _write_blobs(store, archive, members, progress)
            with store.database.write() as session:
                _Restoring(session, store.database.project, archive, members).run(facts)

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
    with path_errors(source, DataError):
        if not source.is_file():
            raise DataError(f"There is no file {source}. Check the path.")
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
            _Restoring(session, project, archive, members).run(facts)
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
    with _row_errors("the rows of items"), archive.open(members["tables/items.jsonl"]) as file:
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
    blobs = [item for item in members.items() if _BLOB.fullmatch(item[0])]
    for done, (name, info) in enumerate(blobs):
        with archive.open(info) as file:
            store.blobs.write_file(name.removeprefix("blobs/"), _chunks(file))
        report(progress, "images", done + 1, len(blobs), "images")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@contextlib.contextmanager
def _readable(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except SeganyError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise DataError(f"{source} is no archive of a project, or damaged: {error}.") from error


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """The members by name; none but those of an archive of ours, of which none is a bomb."""
    allowed = {"manifest.json", *(f"tables/{name}.jsonl" for name in TABLES)}
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        is_blob = _BLOB.fullmatch(info.filename) is not None
        if info.filename in members or not (is_blob or info.filename in allowed):
            raise DataError(f"{source} has a member {info.filename[:100]!r} that no archive of a project has.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 1 or kind not in (0, stat.S_IFREG):
            raise DataError(f"{source}: {info.filename} is encrypted, a link, or no file.")
        if info.file_size > (info.compress_size if is_blob else MAX_RATIO * info.compress_size + _CHUNK):
            raise DataError(f"{source}: {info.filename} would become {info.file_size:,} bytes. It is not unpacked.")
        members[info.filename] = info
    if allowed - set(members):
        raise DataError(f"{source} is no archive of a project: it has no {min(allowed - set(members))}.")
    if sum(info.compress_size for info in members.values()) > source.stat().st_size:
        raise DataError(f"{source} is damaged: its members overlap.")
    return members


def _manifest(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> _Json:
    with _row_errors("manifest.json"):
        facts = json.loads(archive.read(members["manifest.json"]))
        if int(facts["format"]) > FORMAT:
            raise StoreError("The archive was written by a newer version of segany. Upgrade segany.")
        project: _Json = facts["project"]
        check_id(project["id"], "The id of the project")
        check_text(project["name"], "The name of the project", 1, 200)
        check_json(project["settings"], "The settings of the project", MAX_JSON)
        return {**project, "created_at": _time(project["created_at"])}


class _Head(NamedTuple):
    """What is an object's state."""

    revision_id: str
    label_id: int | None
    deleted: bool


class _Restoring:
    """The rows of an archive on their way into the database, in one transaction."""

    def __init__(
        self, session: Session, project: int, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
    ) -> None:
        self.session, self.project = session, project
        self.archive, self.members = archive, members
        self.label_ids: list[set[int]] = []  # by version, from 1
        self.blobs: set[str] = set()
        self.items: dict[str, tuple[int, int, SizeHW]] = {}  # key, position, size
        self.objects: dict[str, tuple[int, str]] = {}  # key, item
        self.revisions: dict[str, tuple[int, str]] = {}  # key, object
        self.heads: dict[str, _Head] = {}  # by object
        self.waiting: set[str] = set()  # revisions that are not inserted yet

    def run(self, facts: _Json) -> None:
        self.session.execute(sa.delete(LabelSchemaRow).where(LabelSchemaRow.project == self.project))
        for name in TABLES:
            self._add_table(name)
        if {f"blobs/{sha256}" for sha256 in self.blobs} != {name for name in self.members if _BLOB.fullmatch(name)}:
            raise DataError("The archive has files that it does not list.")
        row = self.session.get_one(ProjectRow, self.project)
        row.settings, row.created_at = facts["settings"], facts["created_at"]
        row.label_version = len(self.label_ids)
        if not self.label_ids:
            raise DataError("The archive has no label schema.")
        self._derive()

    def _add_table(self, name: str) -> None:
        add: Callable[[_Json], Any] = getattr(self, f"_{name}")
        rows: list[Any] = []
        with self.archive.open(self.members[f"tables/{name}.jsonl"]) as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                with _row_errors(f"row {number} of {name}"):
                    if len(line) > MAX_LINE:
                        raise DataError("It is too long.")
                    values = json.loads(line)
                    if rows and values.get("parent") in self.waiting:
                        self._insert(name, rows)
                    rows.append(add(values))
                    if len(rows) >= _AT_ONCE:
                        self._insert(name, rows)
            with _row_errors(f"the last rows of {name}"):
                self._insert(name, rows)

    def _insert(self, name: str, rows: list[Any]) -> None:
        try:
            self.session.add_all(rows)
            self.session.flush()
        except IntegrityError as error:
            raise DataError(f"Rows of {name} contradict others: {error.orig}.") from error
        for row in rows:
            if isinstance(row, ItemRow):
                self.items[row.id] = (row.key, row.position, (row.height, row.width))
            elif isinstance(row, ObjectRow):
                self.objects[row.id] = (row.key, self.objects[row.id][1])
            elif isinstance(row, RevisionRow):
                self.revisions[row.id] = (row.key, self.revisions[row.id][1])
        self.waiting.clear()
        self.session.expunge_all()
        rows.clear()

    def _label_schemas(self, values: _Json) -> LabelSchemaRow:
        labels = labels_from_json(values["labels"])
        check_labels(labels)
        check_text(values["author"], "The author", 0, 200)
        if values["version"] != len(self.label_ids) + 1:
            raise DataError("Its version does not follow the one before.")
        self.label_ids.append({label.id for label in labels})
        return LabelSchemaRow(
            project=self.project, version=values["version"], labels=labels_to_json(labels), author=values["author"],
            created_at=_time(values["created_at"]),
        )  # fmt: skip

    def _blobs(self, values: _Json) -> BlobRow:
        sha256 = values["sha256"]
        info = self.members.get(f"blobs/{sha256}")
        if info is None or info.file_size != values["byte_count"]:
            raise DataError(f"The file {sha256!r} is missing or of another size.")
        self.blobs.add(sha256)
        check_text(values["media_type"], "The media type", 1, 100)
        for side in ("width", "height"):
            if values[side] is not None:
                check_number(values[side], f"The {side}", 1, 2**31 - 1)
        return BlobRow(
            project=self.project, sha256=sha256, byte_count=info.file_size, media_type=values["media_type"],
            width=values["width"], height=values["height"], created_at=_time(values["created_at"]),
        )  # fmt: skip

    def _items(self, values: _Json) -> ItemRow:
        item = NewItem(**{name: values[name] for name in _ITEM_FACTS})
        check_id(values["id"], "The id of an item")
        check_choice(values["state"], get_args(ItemState), "The state of an item")
        if values["id"] in self.items or f"blobs/{item.sha256}" not in self.members:
            raise DataError("Its id was there before, or its image is missing.")
        self.items[values["id"]] = (0, len(self.items), (item.height, item.width))
        return ItemRow(
            project=self.project, id=values["id"], position=len(self.items) - 1, name=item.name,
            name_key=name_key(item.name), name_order=name_order(item.name),
            sha256=item.sha256, byte_count=item.byte_count, media_type=item.media_type,
            width=item.width, height=item.height, blob=item.sha256, root=None, path=None, state=values["state"],
            split=split_of(item.sha256), created_at=_time(values["created_at"]),
            updated_at=_time(values["updated_at"]),
        )  # fmt: skip

    def _objects(self, values: _Json) -> ObjectRow:
        check_id(values["id"], "The id of an object")
        if values["id"] in self.objects:
            raise DataError("Its id was there before.")
        item_key = self.items[values["item"]][0]
        self.objects[values["id"]] = (0, values["item"])
        return ObjectRow(project=self.project, id=values["id"], item=item_key, created_at=_time(values["created_at"]))

    def _revisions(self, values: _Json) -> RevisionRow:
        object_id = values["object"]
        object_key, item_id = self.objects[object_id]
        change = Change(
            object_id=object_id, revision_id=values["id"], base_id=values["parent"],
            **{name: values[name] for name in _CHANGE_FACTS},
        )  # fmt: skip
        check_id(values["batch_id"], "The id of a batch")
        check_text(values["author"], "The author", 0, 200)
        check_number(values["label_version"], "The version of the labels", 1, len(self.label_ids))
        if not isinstance(change.deleted, bool) or change.revision_id in self.revisions:
            raise DataError("Its id was there before, or `deleted` is neither true nor false.")
        if change.label_id is not None and change.label_id not in self.label_ids[values["label_version"] - 1]:
            raise DataError(f"There is no label {change.label_id}.")
        parent, parent_object = self.revisions[change.base_id] if change.base_id else (None, object_id)
        if parent_object != object_id:
            raise DataError("Its parent belongs to another object.")
        (x0, y0, x1, y1), area = measure(change, self.items[item_id][2])
        head = self.heads.get(object_id)
        conflicting = (head.revision_id if head else None) != change.base_id
        if not conflicting:
            self.heads[object_id] = _Head(change.revision_id, change.label_id, change.deleted)
        self.revisions[change.revision_id] = (0, object_id)
        self.waiting.add(change.revision_id)
        return RevisionRow(
            project=self.project, id=change.revision_id, object=object_key, parent=parent,
            batch_id=values["batch_id"], counts=change.counts, x0=x0, y0=y0, x1=x1, y1=y1, area=area,
            label_id=change.label_id, label_version=values["label_version"], attributes=dict(change.attributes),
            z=float(change.z), source=change.source, author=values["author"], model_version=change.model_version,
            deleted=change.deleted, conflicting=conflicting, active_ms=change.active_ms,
            created_at=_time(values["created_at"]),
        )  # fmt: skip

    def _prompt_events(self, values: _Json) -> PromptEventRow:
        event = PromptEvent(**{name: values[name] for name in _EVENT_FACTS})
        return PromptEventRow(
            project=self.project, id=event.id, revision=self.revisions[values["revision"]][0],
            sequence=event.sequence, kind=event.kind, payload=dict(event.payload), model_version=event.model_version,
            candidate=event.candidate, latency_ms=event.latency_ms, created_at=_time(values["created_at"]),
        )  # fmt: skip

    def _proposals(self, values: _Json) -> ProposalsRow:
        item_key, _, size_hw = self.items[values["item"]]
        check_text(values["model_version"], "The model version", 1, 500)
        instances = unpack(base64.b64decode(values["instances"], validate=True))
        if instances.size_hw != size_hw:
            raise DataError("The masks are of another size than the image.")
        return ProposalsRow(
            item=item_key, project=self.project, model_version=values["model_version"], instances=pack(instances),
            created_at=_time(values["created_at"]),
        )  # fmt: skip

    def _derive(self) -> None:
        """Rows that follow from others: the states of objects, and what is counted along."""
        rows: list[Any] = []
        objects: dict[str, int] = {}
        labels: dict[tuple[str, int], int] = {}
        for object_id, head in self.heads.items():
            object_key, item_id = self.objects[object_id]
            revision = self.revisions[head.revision_id][0]
            rows.append(
                HeadRow(
                    object=object_key, project=self.project, item=self.items[item_id][0], revision=revision,
                    label_id=head.label_id, deleted=head.deleted,
                )
            )  # fmt: skip
            if not head.deleted:
                objects[item_id] = objects.get(item_id, 0) + 1
                if head.label_id is not None:
                    labels[item_id, head.label_id] = labels.get((item_id, head.label_id), 0) + 1
        for (item_id, label_id), count in labels.items():
            key, position, _ = self.items[item_id]
            rows.append(
                ItemLabelRow(project=self.project, label_id=label_id, position=position, item=key, objects=count)
            )
        self.session.add_all(rows)
        for item_id, count in objects.items():
            self.session.execute(sa.update(ItemRow).where(ItemRow.key == self.items[item_id][0]).values(objects=count))


def _time(text: Any) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise DataError(f"The time {text!r} has no zone.")
    return time.astimezone(timezone.utc)


@contextlib.contextmanager
def _row_errors(where: str) -> Iterator[None]:
    """Say where a value is that is missing or wrong."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        what = f"{error} is missing or refers to nothing." if isinstance(error, KeyError) else error
        raise DataError(f"The archive is damaged, {where}: {what}") from error
