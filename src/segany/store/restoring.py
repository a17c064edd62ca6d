"""The rows of an archive, checked and on their way into the database. `restore` opens the archive."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeAlias, get_args

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from segany.core.arrays import SizeHW
from segany.core.errors import DataError
from segany.store.archive import TABLES
from segany.store.checks import check_choice, check_id, check_json, check_number, check_text
from segany.store.items import name_key, name_order, split_of
from segany.store.labels import check_labels, labels_from_json, labels_to_json
from segany.store.proposals import pack, unpack
from segany.store.revisions import MAX_COUNTS, Change, PromptEvent
from segany.store.saving import measure
from segany.store.tables import (
    BlobRow,
    HeadRow,
    ItemLabelRow,
    ItemRow,
    LabelSchemaRow,
    ModelVersionRow,
    ObjectRow,
    ProjectRow,
    PromptEventRow,
    ProposalsRow,
    RevisionRow,
    SnapshotRevisionRow,
    SnapshotRow,
)
from segany.store.values import MAX_JSON, ItemState, ModelState, NewItem, Split

MAX_LINE = 2 * MAX_COUNTS + 8 * MAX_JSON
"""Bytes of a row."""

_AT_ONCE = 500  # rows of an insert

BLOB = re.compile(r"blobs/[0-9a-f]{64}")
"""The names of files in an archive."""

_ITEM_FACTS = ("name", "sha256", "byte_count", "media_type", "width", "height")
_CHANGE_FACTS = ("counts", "label_id", "attributes", "z", "source", "deleted", "active_ms", "model_version")
_EVENT_FACTS = ("id", "sequence", "kind", "payload", "model_version", "candidate", "latency_ms")

_Json: TypeAlias = dict[str, Any]


class _Head(NamedTuple):
    """What is an object's state."""

    revision_id: str
    label_id: int | None
    deleted: bool


class Restoring:
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
        self.snapshots: dict[str, int] = {}
        self.models: dict[str, int] = {}
        self.waiting: set[str] = set()  # revisions and models that are not inserted yet

    def run(self, facts: _Json) -> None:
        self.session.execute(sa.delete(LabelSchemaRow).where(LabelSchemaRow.project == self.project))
        for name in TABLES:
            self._add_table(name)
        if {f"blobs/{sha256}" for sha256 in self.blobs} != {name for name in self.members if BLOB.fullmatch(name)}:
            raise DataError("The archive has files that it does not list.")
        row = self.session.get_one(ProjectRow, self.project)
        row.settings, row.created_at = facts["settings"], facts["created_at"]
        row.label_version = len(self.label_ids)
        if not self.label_ids:
            raise DataError("The archive has no label schema.")
        self._derive()

    def _add_table(self, name: str) -> None:
        if f"tables/{name}.jsonl" not in self.members:  # of a version of segany that had no such table
            return
        add: Callable[[_Json], Any] = getattr(self, f"_{name}")
        rows: list[Any] = []
        with self.archive.open(self.members[f"tables/{name}.jsonl"]) as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                with row_errors(f"row {number} of {name}"):
                    if len(line) > MAX_LINE:
                        raise DataError("It is too long.")
                    values = json.loads(line)
                    if rows and values.get("parent") in self.waiting:
                        self._insert(name, rows)
                    rows.append(add(values))
                    if len(rows) >= _AT_ONCE:
                        self._insert(name, rows)
            with row_errors(f"the last rows of {name}"):
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
            elif isinstance(row, ModelVersionRow):
                self.models[row.id] = row.key
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
            created_at=parse_time(values["created_at"]),
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
            width=values["width"], height=values["height"], created_at=parse_time(values["created_at"]),
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
            split=split_of(item.sha256), created_at=parse_time(values["created_at"]),
            updated_at=parse_time(values["updated_at"]),
        )  # fmt: skip

    def _objects(self, values: _Json) -> ObjectRow:
        check_id(values["id"], "The id of an object")
        if values["id"] in self.objects:
            raise DataError("Its id was there before.")
        item_key = self.items[values["item"]][0]
        self.objects[values["id"]] = (0, values["item"])
        return ObjectRow(
            project=self.project, id=values["id"], item=item_key, created_at=parse_time(values["created_at"])
        )

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
            created_at=parse_time(values["created_at"]),
        )  # fmt: skip

    def _prompt_events(self, values: _Json) -> PromptEventRow:
        event = PromptEvent(**{name: values[name] for name in _EVENT_FACTS})
        return PromptEventRow(
            project=self.project, id=event.id, revision=self.revisions[values["revision"]][0],
            sequence=event.sequence, kind=event.kind, payload=dict(event.payload), model_version=event.model_version,
            candidate=event.candidate, latency_ms=event.latency_ms, created_at=parse_time(values["created_at"]),
        )  # fmt: skip

    def _proposals(self, values: _Json) -> ProposalsRow:
        item_key, _, size_hw = self.items[values["item"]]
        check_text(values["model_version"], "The model version", 1, 500)
        instances = unpack(base64.b64decode(values["instances"], validate=True))
        if instances.size_hw != size_hw:
            raise DataError("The masks are of another size than the image.")
        return ProposalsRow(
            item=item_key, project=self.project, model_version=values["model_version"], instances=pack(instances),
            created_at=parse_time(values["created_at"]),
        )  # fmt: skip

    def _snapshots(self, values: _Json) -> SnapshotRow:
        check_id(values["id"], "The id of a snapshot")
        if not re.fullmatch("[0-9a-f]{64}", values["digest"]) or values["id"] in self.snapshots:
            raise DataError("Its digest is none, or its id was there before.")
        row = SnapshotRow(
            project=self.project, id=values["id"], digest=values["digest"], created_at=parse_time(values["created_at"])
        )
        self.session.add(row)
        self.session.flush()
        self.snapshots[row.id] = row.key
        for split, revision_id in values["revisions"]:
            check_choice(split, get_args(Split), "The side of a revision")
            revision = self.revisions[revision_id][0]
            self.session.add(SnapshotRevisionRow(snapshot=row.key, revision=revision, split=split))
        return row

    def _model_versions(self, values: _Json) -> ModelVersionRow:
        check_id(values["id"], "The id of a model version")
        check_number(values["number"], "The number of a model version", 1, 2**31 - 1)
        check_choice(values["state"], get_args(ModelState), "The state of a model version")
        for name, least in (("model", 1), ("recipe", 0)):
            check_text(values[name], f"The {name} of a model version", least, 500)
        check_text(values["message"], "The message of a model version", 0, 10_000)
        check_json(values["figures"], "The figures of a model version", MAX_JSON)
        if values["blob"] is not None and values["blob"] not in self.blobs:
            raise DataError("Its file is missing.")
        self.waiting.add(values["id"])
        return ModelVersionRow(
            project=self.project, id=values["id"], number=values["number"], state=values["state"],
            model=values["model"], blob=values["blob"], recipe=values["recipe"], figures=values["figures"],
            parent=self.models[values["parent"]] if values["parent"] else None,
            snapshot=self.snapshots[values["snapshot"]] if values["snapshot"] else None, message=values["message"],
            created_at=parse_time(values["created_at"]), updated_at=parse_time(values["updated_at"]),
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


def parse_time(text: Any) -> datetime:
    """A time as `export_archive` writes it; raises `DataError` where it has no zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise DataError(f"The time {text!r} has no zone.")
    return time.astimezone(timezone.utc)


@contextlib.contextmanager
def row_errors(where: str) -> Iterator[None]:
    """Say where a value is that is missing or wrong."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        what = f"{error} is missing or refers to nothing." if isinstance(error, KeyError) else error
        raise DataError(f"The archive is damaged, {where}: {what}") from error
