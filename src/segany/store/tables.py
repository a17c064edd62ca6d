"""The tables of the database. Rows refer to each other by integer keys, people and programs to them by UUIDs.

Every row belongs to a project, by which all queries are limited: a PostgreSQL database may hold many of them.
`revisions` and `prompt_events` are append-only, which triggers hold: see the migrations.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from segany.store.revisions import EventKind, RevisionSource
from segany.store.values import ItemState, JobState, ModelState, Split


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone, UTC. SQLite has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(timezone.utc)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


BIG = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what is called INTEGER
SORTED_TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")  # the same order everywhere

Key = Annotated[int, mapped_column(BIG, primary_key=True, autoincrement=True)]
Id = Annotated[str, mapped_column(Uuid(as_uuid=False))]
Sha256 = Annotated[str, mapped_column(String(64))]
ProjectKey = Annotated[int, mapped_column(BIG, ForeignKey("projects.key"))]
ItemKey = Annotated[int, mapped_column(BIG, ForeignKey("items.key"))]
Big = Annotated[int, mapped_column(BIG)]


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), str: Text(), dict[str, Any]: JSON(), float: Float(53)}  # noqa: RUF012


def _one_of(column: str, choices: Any) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(choice) for choice in get_args(choices))})", column)


class ProjectRow(Base):
    """Settings are those of the project; keys and passwords are in `secrets`."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("id"),)

    key: Mapped[Key]
    id: Mapped[Id]
    name: Mapped[str]
    settings: Mapped[dict[str, Any]]
    label_version: Mapped[int]
    created_at: Mapped[datetime]


class SecretRow(Base):
    """Random keys of the server. They are in no archive."""

    __tablename__ = "secrets"

    project: Mapped[ProjectKey] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


class LabelSchemaRow(Base):
    """Every version that there was."""

    __tablename__ = "label_schemas"

    project: Mapped[ProjectKey] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    labels: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    author: Mapped[str]
    created_at: Mapped[datetime]


class RootRow(Base):
    """Folders that images are read from by reference."""

    __tablename__ = "roots"

    project: Mapped[ProjectKey] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]


class BlobRow(Base):
    """Files in the project's folder, by the sha256 of their bytes."""

    __tablename__ = "blobs"

    project: Mapped[ProjectKey] = mapped_column(primary_key=True)
    sha256: Mapped[Sha256] = mapped_column(primary_key=True)
    byte_count: Mapped[Big]
    media_type: Mapped[str]
    width: Mapped[int | None]
    height: Mapped[int | None]
    created_at: Mapped[datetime]


class ItemRow(Base):
    """Images. They are found by `name_key`, the name without case, and sorted by `name_order`, with numbers in it."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("project", "id"),
        UniqueConstraint("project", "position"),
        UniqueConstraint("project", "root", "path"),
        ForeignKeyConstraint(["project", "blob"], ["blobs.project", "blobs.sha256"]),
        ForeignKeyConstraint(["project", "root"], ["roots.project", "roots.name"]),
        CheckConstraint("blob IS NOT NULL OR (root IS NOT NULL AND path IS NOT NULL)", "has_bytes"),
        _one_of("state", ItemState),
        _one_of("split", Split),
        Index(None, "project", "state", "position"),
        Index(None, "project", "name_key"),
        Index(None, "project", "name_order", "position"),
        Index(None, "project", "objects", "position"),
        Index(None, "project", "updated_at", "position"),
        Index(None, "project", "sha256"),
    )

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    position: Mapped[Big]
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(SORTED_TEXT)
    name_order: Mapped[str] = mapped_column(SORTED_TEXT)
    sha256: Mapped[Sha256]
    byte_count: Mapped[Big]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    blob: Mapped[str | None] = mapped_column(String(64))
    root: Mapped[str | None]
    path: Mapped[str | None]
    state: Mapped[str]
    split: Mapped[str]
    objects: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ItemLabelRow(Base):
    """How many objects of a label an item has: counted along, so that filtering by label takes no time."""

    __tablename__ = "item_labels"
    __table_args__ = (Index(None, "item"),)

    project: Mapped[ProjectKey] = mapped_column(primary_key=True)
    label_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[Big] = mapped_column(primary_key=True, autoincrement=False)
    item: Mapped[ItemKey]
    objects: Mapped[int]


class ObjectRow(Base):
    """The identity of an annotated object."""

    __tablename__ = "objects"
    __table_args__ = (UniqueConstraint("project", "id"),)

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    item: Mapped[ItemKey] = mapped_column(index=True)
    created_at: Mapped[datetime]


class RevisionRow(Base):
    """States of objects, append-only. The mask is the item's size in pixels."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("project", "id"), _one_of("source", RevisionSource))

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    object: Mapped[int] = mapped_column(BIG, ForeignKey("objects.key"), index=True)
    parent: Mapped[int | None] = mapped_column(BIG, ForeignKey("revisions.key"))
    batch_id: Mapped[Id]
    counts: Mapped[str]
    x0: Mapped[int]
    y0: Mapped[int]
    x1: Mapped[int]
    y1: Mapped[int]
    area: Mapped[Big]
    label_id: Mapped[int | None]
    label_version: Mapped[int]
    attributes: Mapped[dict[str, Any]]
    z: Mapped[float]
    source: Mapped[str]
    author: Mapped[str]
    model_version: Mapped[str | None]
    deleted: Mapped[bool]
    conflicting: Mapped[bool]
    active_ms: Mapped[Big]
    created_at: Mapped[datetime]


class HeadRow(Base):
    """The revision that is an object's state; what is filtered by is repeated here."""

    __tablename__ = "heads"
    __table_args__ = (Index(None, "item", "deleted"),)

    object: Mapped[int] = mapped_column(BIG, ForeignKey("objects.key"), primary_key=True, autoincrement=False)
    project: Mapped[ProjectKey]
    item: Mapped[ItemKey]
    revision: Mapped[int] = mapped_column(BIG, ForeignKey("revisions.key"))
    label_id: Mapped[int | None]
    deleted: Mapped[bool]


class PromptEventRow(Base):
    """What people did on the way to a revision, append-only."""

    __tablename__ = "prompt_events"
    __table_args__ = (UniqueConstraint("project", "id"), _one_of("kind", EventKind))

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    revision: Mapped[int] = mapped_column(BIG, ForeignKey("revisions.key"), index=True)
    sequence: Mapped[Big]
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    model_version: Mapped[str | None]
    candidate: Mapped[int | None]
    latency_ms: Mapped[int | None] = mapped_column(BIG)
    created_at: Mapped[datetime]


class ProposalsRow(Base):
    """Automatic masks of an item, by the model that found them; compressed JSON."""

    __tablename__ = "proposals"

    item: Mapped[ItemKey] = mapped_column(primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[ProjectKey]
    instances: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


class SnapshotRow(Base):
    """Annotations as they were at one moment: what a model is trained and measured on."""

    __tablename__ = "snapshots"
    __table_args__ = (UniqueConstraint("project", "id"),)

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    digest: Mapped[Sha256]
    created_at: Mapped[datetime]


class SnapshotRevisionRow(Base):
    """A revision of a snapshot, and the side that it is on."""

    __tablename__ = "snapshot_revisions"
    __table_args__ = (_one_of("split", Split),)

    snapshot: Mapped[int] = mapped_column(BIG, ForeignKey("snapshots.key"), primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BIG, ForeignKey("revisions.key"), primary_key=True, autoincrement=False)
    split: Mapped[str]


class ModelVersionRow(Base):
    """Models of a project, in the order in which they were trained. The file is a blob; a named model has none."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("project", "id"),
        UniqueConstraint("project", "number"),
        ForeignKeyConstraint(["project", "blob"], ["blobs.project", "blobs.sha256"]),
        _one_of("state", ModelState),
    )

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    number: Mapped[int]
    state: Mapped[str]
    model: Mapped[str]
    blob: Mapped[str | None] = mapped_column(String(64))
    parent: Mapped[int | None] = mapped_column(BIG, ForeignKey("model_versions.key"))
    snapshot: Mapped[int | None] = mapped_column(BIG, ForeignKey("snapshots.key"))
    recipe: Mapped[str]
    figures: Mapped[dict[str, Any]]
    message: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class JobRow(Base):
    """Work to do, being done, and done. Who holds the lease works on it until `leased_until`."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("project", "id"),
        UniqueConstraint("project", "idempotency_key"),
        _one_of("state", JobState),
        Index(None, "project", "state", "key"),
    )

    key: Mapped[Key]
    project: Mapped[ProjectKey]
    id: Mapped[Id]
    kind: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    state: Mapped[str]
    lease: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    leased_until: Mapped[datetime | None]
    attempts: Mapped[int]
    cancel_requested: Mapped[bool]
    done: Mapped[Big]
    total: Mapped[Big]
    unit: Mapped[str]
    message: Mapped[str]
    result: Mapped[Any] = mapped_column(JSON)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
