"""From rows to values, and what several parts of the store ask of the database."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import NotFoundError
from segany.store.checks import is_id
from segany.store.revisions import ObjectState, PromptEvent
from segany.store.tables import ItemRow, JobRow, PromptEventRow, RevisionRow
from segany.store.values import Item, Job, JobState


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


def find_item(session: Session, project: int, item_id: str) -> ItemRow:
    """The row of an item.

    Raises:
        NotFoundError: the project has no such item.
    """
    row = None
    if is_id(item_id):
        row = session.scalar(sa.select(ItemRow).where(ItemRow.project == project, ItemRow.id == item_id))
    if row is None:
        raise NotFoundError(f"The project has no item {str(item_id)[:60]!r}.")
    return row


ITEM_COLUMNS = tuple(ItemRow.__table__.columns)
"""Of rows that are read and not changed: `session.execute(select(*ITEM_COLUMNS))` takes half as long as objects."""

STATE_COLUMNS = tuple(RevisionRow.__table__.columns)


def item_value(row: ItemRow | Any) -> Item:
    """An item of its row, or of its `ITEM_COLUMNS`."""
    return Item(
        id=row.id,
        position=row.position,
        name=row.name,
        width=row.width,
        height=row.height,
        state=cast(Any, row.state),
        split=cast(Any, row.split),
        objects=row.objects,
        sha256=row.sha256,
        media_type=row.media_type,
        byte_count=row.byte_count,
        root=row.root,
        path=row.path,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def object_value(row: RevisionRow | Any, object_id: str, parent_id: str | None) -> ObjectState:
    """An object as the row of one of its revisions has it, or the `STATE_COLUMNS`."""
    return ObjectState(
        id=object_id,
        revision_id=row.id,
        parent_id=parent_id,
        label_id=row.label_id,
        label_version=row.label_version,
        attributes=row.attributes,
        counts=row.counts,
        box_xyxy=(row.x0, row.y0, row.x1, row.y1),
        area=row.area,
        z=row.z,
        source=cast(Any, row.source),
        author=row.author,
        model_version=row.model_version,
        deleted=row.deleted,
        created_at=row.created_at,
    )


def event_value(row: PromptEventRow) -> PromptEvent:
    """A prompt event of its row."""
    return PromptEvent(
        row.id, row.sequence, cast(Any, row.kind), row.payload, row.model_version, row.candidate, row.latency_ms
    )


def job_value(row: JobRow) -> Job:
    """A job of its row."""
    return Job(
        id=row.id,
        kind=row.kind,
        arguments=row.arguments,
        state=cast(JobState, row.state),
        done=row.done,
        total=row.total,
        unit=row.unit,
        message=row.message,
        result=row.result,
        attempts=row.attempts,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
