"""A project as one file: a zip archive that `restore` makes the same project of, on either database.

It holds `manifest.json`, rows as `tables/NAME.jsonl`, and files as `blobs/SHA256`. Images that items refer to are in
it as blobs, so that it needs nothing else. Jobs and the keys of the server are not in it. The same project always
gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from segany.core.errors import ImageError, NotFoundError
from segany.core.files import replacing
from segany.core.progress import ProgressCallback, report
from segany.store.blobs import damaged
from segany.store.migrate import REVISION
from segany.store.references import reference
from segany.store.store import Store
from segany.store.tables import (
    BlobRow,
    ItemRow,
    LabelSchemaRow,
    ModelVersionRow,
    ObjectRow,
    ProjectRow,
    PromptEventRow,
    ProposalsRow,
    RevisionRow,
    RootRow,
    SnapshotRevisionRow,
    SnapshotRow,
)

FORMAT = 1
"""Goes up when earlier versions of segany could not read an archive."""

ALWAYS = ("label_schemas", "blobs", "items", "objects", "revisions", "prompt_events", "proposals")
"""Tables that every archive has."""

TABLES = (*ALWAYS, "snapshots", "model_versions")
"""In the order in which rows refer to earlier ones."""

_CHUNK = 1 << 20

_Json: TypeAlias = dict[str, Any]


def export_archive(store: Store, path: str | Path, progress: ProgressCallback | None = None) -> Path:
    """Write a project into one file, as it is at one moment, while others go on working.

    Args:
        store: the open project.
        path: of the archive; a file there is replaced at the end.
        progress: is told of every image.

    Raises:
        ImageError: an image that an item refers to was moved or changed: relink it first.
        StoreError: a file of the project is damaged.
        OutputError: the archive cannot be written.
    """
    target = Path(path)
    with (
        store.database.read() as session,
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        key = store.database.project
        project = session.get_one(ProjectRow, key)
        facts = {
            "format": FORMAT,
            "schema": REVISION,
            "project": {
                "id": project.id,
                "name": project.name,
                "settings": project.settings,
                "created_at": project.created_at.isoformat(),
            },
        }
        archive.writestr(_member("manifest.json"), json.dumps(facts, sort_keys=True, indent=1))
        for name in TABLES:
            with archive.open(_member(f"tables/{name}.jsonl"), "w", force_zip64=True) as file:
                for row in _ROWS[name](session, key):
                    file.write(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        files = list(_files(session, store, key))
        for done, (sha256, source) in enumerate(files):
            _write_blob(archive, sha256, source)
            report(progress, "images", done + 1, len(files), "images")
    return target


def _member(name: str, *, size: int | None = None) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # of 1980, so that the same project gives the same bytes
    info.external_attr = 0o600 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if size is None else zipfile.ZIP_STORED  # images are compressed already
    info.file_size = size or 0
    return info


def _write_blob(archive: zipfile.ZipFile, sha256: str, source: Path) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as read, archive.open(_member(f"blobs/{sha256}", size=source.stat().st_size), "w") as write:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            write.write(chunk)
    if digest.hexdigest() != sha256:
        raise damaged(source)


def _files(session: Session, store: Store, project: int) -> Iterator[tuple[str, Path]]:
    """The sha256 and the path of every file, in the order of the sha256."""
    roots = {row.name: Path(row.path) for row in session.scalars(sa.select(RootRow).where(RootRow.project == project))}
    blobs = set(session.scalars(sa.select(BlobRow.sha256).where(BlobRow.project == project)))
    references: dict[str, ItemRow] = {}
    for row in session.scalars(sa.select(ItemRow).where(ItemRow.project == project, ItemRow.blob.is_(None))):
        references.setdefault(row.sha256, row)
    for sha256 in sorted(blobs | set(references)):
        if sha256 in blobs:
            try:
                yield sha256, store.blobs.path(sha256)
            except NotFoundError as error:
                raise ImageError(str(error)) from error
        else:
            row = references[sha256]
            yield sha256, reference(roots[row.root or ""], row)


# Rows: by ids instead of keys, without what follows from other rows.


def _label_schemas(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(LabelSchemaRow).where(LabelSchemaRow.project == project).order_by(LabelSchemaRow.version)
    for row in session.scalars(query):
        yield _columns(row, "version", "labels", "author", "created_at")


def _blobs(session: Session, project: int) -> Iterator[_Json]:
    rows = {
        row.sha256: _columns(row, "sha256", "byte_count", "media_type", "width", "height", "created_at")
        for row in session.scalars(sa.select(BlobRow).where(BlobRow.project == project))
    }
    references = sa.select(ItemRow).where(ItemRow.project == project, ItemRow.blob.is_(None))
    for item in session.scalars(references.order_by(ItemRow.position)):
        if item.sha256 not in rows:
            rows[item.sha256] = _columns(item, "sha256", "byte_count", "media_type", "width", "height", "created_at")
    for sha256 in sorted(rows):
        yield rows[sha256]


def _items(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(ItemRow).where(ItemRow.project == project).order_by(ItemRow.position)
    for row in session.scalars(query.execution_options(yield_per=1000)):
        yield _columns(
            row, "id", "name", "sha256", "byte_count", "media_type", "width", "height", "state", "created_at",
            "updated_at",
        )  # fmt: skip


def _objects(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(ObjectRow, ItemRow.id).join(ItemRow, ItemRow.key == ObjectRow.item)
    query = query.where(ObjectRow.project == project).order_by(ObjectRow.key)
    for row, item_id in session.execute(query.execution_options(yield_per=1000)):
        yield {**_columns(row, "id", "created_at"), "item": item_id}


def _revisions(session: Session, project: int) -> Iterator[_Json]:
    parent = aliased(RevisionRow)
    query = sa.select(RevisionRow, ObjectRow.id, parent.id).join(ObjectRow, ObjectRow.key == RevisionRow.object)
    query = query.outerjoin(parent, parent.key == RevisionRow.parent).where(RevisionRow.project == project)
    for row, object_id, parent_id in session.execute(query.order_by(RevisionRow.key).execution_options(yield_per=200)):
        values = _columns(
            row, "id", "batch_id", "counts", "label_id", "label_version", "attributes", "z", "source", "author",
            "model_version", "deleted", "active_ms", "created_at",
        )  # fmt: skip
        yield {**values, "object": object_id, "parent": parent_id}


def _prompt_events(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(PromptEventRow, RevisionRow.id).join(RevisionRow, RevisionRow.key == PromptEventRow.revision)
    query = query.where(PromptEventRow.project == project).order_by(PromptEventRow.key)
    for row, revision_id in session.execute(query.execution_options(yield_per=1000)):
        values = _columns(
            row, "id", "sequence", "kind", "payload", "model_version", "candidate", "latency_ms", "created_at"
        )
        yield {**values, "revision": revision_id}


def _proposals(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(ProposalsRow, ItemRow.id).join(ItemRow, ItemRow.key == ProposalsRow.item)
    query = query.where(ProposalsRow.project == project).order_by(ItemRow.position, ProposalsRow.created_at)
    for row, item_id in session.execute(query.execution_options(yield_per=20)):
        packed = base64.b64encode(row.instances).decode("ascii")
        yield {**_columns(row, "model_version", "created_at"), "item": item_id, "instances": packed}


def _snapshots(session: Session, project: int) -> Iterator[_Json]:
    query = sa.select(SnapshotRow).where(SnapshotRow.project == project).order_by(SnapshotRow.key)
    for row in session.scalars(query):
        revisions = sa.select(SnapshotRevisionRow.split, RevisionRow.id)
        revisions = revisions.join(RevisionRow, RevisionRow.key == SnapshotRevisionRow.revision)
        revisions = revisions.where(SnapshotRevisionRow.snapshot == row.key).order_by(RevisionRow.key)
        found = [list(pair) for pair in session.execute(revisions)]
        yield {**_columns(row, "id", "digest", "created_at"), "revisions": found}


def _model_versions(session: Session, project: int) -> Iterator[_Json]:
    parent = aliased(ModelVersionRow)
    query = sa.select(ModelVersionRow, parent.id, SnapshotRow.id)
    query = query.outerjoin(parent, parent.key == ModelVersionRow.parent)
    query = query.outerjoin(SnapshotRow, SnapshotRow.key == ModelVersionRow.snapshot)
    query = query.where(ModelVersionRow.project == project).order_by(ModelVersionRow.number)
    for row, parent_id, snapshot_id in session.execute(query):
        values = _columns(
            row, "id", "number", "state", "model", "blob", "recipe", "figures", "message", "created_at", "updated_at"
        )
        yield {**values, "parent": parent_id, "snapshot": snapshot_id}


_ROWS: dict[str, Callable[[Session, int], Iterator[_Json]]] = {
    "label_schemas": _label_schemas,
    "blobs": _blobs,
    "items": _items,
    "objects": _objects,
    "revisions": _revisions,
    "prompt_events": _prompt_events,
    "proposals": _proposals,
    "snapshots": _snapshots,
    "model_versions": _model_versions,
}


def _columns(row: object, *names: str) -> _Json:
    values = {name: getattr(row, name) for name in names}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
