"""The objects of items: saving changes, reading states, and what every mask was made from."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from segany.core.errors import DataError, NotFoundError
from segany.core.instances import NO_ID, Category, Instances, Source
from segany.core.rle import Rle, box_xyxy, run_lengths
from segany.store.checks import check_id, check_text, is_id
from segany.store.database import Database
from segany.store.labels import Labels
from segany.store.rows import event_value, find_item, item_value, now, object_value
from segany.store.tables import HeadRow, ItemLabelRow, ItemRow, ObjectRow, PromptEventRow, RevisionRow
from segany.store.values import (
    Change,
    Conflict,
    ObjectState,
    Replay,
    Revision,
    RevisionSource,
    Saved,
    SaveResult,
)

MAX_CHANGES = 10_000
"""Changes of a batch at most."""

_SOURCES: dict[RevisionSource, Source] = {
    "manual": "human",
    "assisted": "prompt",
    "auto": "automatic",
    "imported": "import",
}

_REVISION_SOURCES: dict[str, RevisionSource] = {
    "human": "manual",
    "prompt": "assisted",
    "automatic": "auto",
    "text": "auto",
    "track": "auto",
    "import": "imported",
}


class Annotations:
    """The objects of a project. A revision is never changed: a change is a new one."""

    def __init__(self, database: Database, labels: Labels) -> None:
        self._database, self._labels = database, labels

    # Saving.

    def save(self, item_id: str, batch_id: str, changes: Sequence[Change], author: str) -> SaveResult:
        """Save changes of an item's objects, all or none. Saving the same changes again does nothing.

        A change whose base is no longer the object's state is a conflict: its revision is kept, and the state stays.
        An item "todo" becomes "in_progress".

        Args:
            item_id: the item.
            batch_id: UUID that the client made; the same one when it repeats the request.
            changes: applied in order; a later one may have an earlier one as its base.
            author: who made them.

        Raises:
            NotFoundError: the project has no such item.
            DataError: a mask does not fit the image, an object or revision is another item's, a label or base is
                not known.
            OutputError: there is no space. Nothing was saved.
        """
        check_id(batch_id, "The id of a batch")
        check_text(author, "The author", 0, 200)
        if len(changes) > MAX_CHANGES:
            raise DataError(f"{len(changes):,} changes are too many for one batch: at most {MAX_CHANGES:,}.")
        with self._database.read() as session:  # what takes time is done before others have to wait
            size_hw = item_value(find_item(session, self._database.project, item_id)).size_hw
        measured = [_measure(change, size_hw) for change in changes]
        with self._database.write() as session:
            item = find_item(session, self._database.project, item_id)
            return _Saving(session, self._database.project, item, self._labels, batch_id, author).run(changes, measured)

    def add_instances(
        self,
        item_id: str,
        batch_id: str,
        instances: Instances,
        author: str,
        *,
        source: RevisionSource | None = None,
        model_version: str | None = None,
    ) -> SaveResult:
        """Save instances as new objects. The same batch of an item does it once, however often it is repeated.

        Args:
            item_id, batch_id, author: as for `save`.
            instances: of the item's size. Categories become the labels of the same names, made where there are none.
            source: of all of them; where None, that of each instance.
            model_version: the model that found them.

        Raises:
            DataError: the instances are of another size, or as for `save`.
            NotFoundError: the project has no such item.
        """
        check_id(batch_id, "The id of a batch")
        used = set(instances.category_ids.tolist())
        label_ids = self._labels.ensure([item for item in instances.categories if item.id in used], author)
        with self._database.read() as session:
            size_hw = item_value(find_item(session, self._database.project, item_id)).size_hw
        if instances.size_hw != size_hw:
            raise DataError(f"The instances are {instances.size_hw} high and wide, but the image {size_hw}.")
        names = uuid.uuid5(uuid.UUID(batch_id), item_id)
        changes = [
            Change(
                object_id=str(uuid.uuid5(names, f"object {index}")),
                revision_id=str(uuid.uuid5(names, f"revision {index}")),
                base_id=None,
                counts=counts,
                label_id=label_ids.get(int(instances.category_ids[index])),
                source=source or _REVISION_SOURCES[str(instances.sources[index])],
                z=float(index),
                model_version=model_version,
            )
            for index, counts in enumerate(instances.rle_counts)
        ]
        parts = [
            self.save(item_id, batch_id, changes[start : start + MAX_CHANGES], author)
            for start in range(0, len(changes), MAX_CHANGES)
        ]
        return SaveResult(
            tuple(saved for part in parts for saved in part.saved),
            tuple(conflict for part in parts for conflict in part.conflicts),
        )

    # Reading.

    def objects(self, item_id: str, *, deleted: bool = False) -> tuple[ObjectState, ...]:
        """The objects of an item in the order of drawing; with `deleted`, those that are deleted too.

        Raises:
            NotFoundError: the project has no such item.
        """
        parent = aliased(RevisionRow)
        with self._database.read() as session:
            item = find_item(session, self._database.project, item_id)
            query = (
                sa.select(RevisionRow, ObjectRow.id, parent.id)
                .select_from(HeadRow)
                .join(RevisionRow, RevisionRow.key == HeadRow.revision)
                .join(ObjectRow, ObjectRow.key == HeadRow.object)
                .outerjoin(parent, parent.key == RevisionRow.parent)
                .where(HeadRow.item == item.key)
                .order_by(RevisionRow.z, ObjectRow.key)
            )
            if not deleted:
                query = query.where(HeadRow.deleted.is_(False))
            return tuple(object_value(*row) for row in session.execute(query))

    def instances(self, item_id: str) -> Instances:
        """The objects of an item in the order of drawing, with the labels as categories.

        The column `object_uuid` has the ids of the objects.

        Raises:
            NotFoundError: the project has no such item.
        """
        with self._database.read() as session:
            size_hw = item_value(find_item(session, self._database.project, item_id)).size_hw
            labels = self._labels.of(session).labels
        states = self.objects(item_id)
        return Instances(
            [state.counts for state in states],
            size_hw,
            boxes_xyxy=np.array([state.box_xyxy for state in states], dtype=np.float32).reshape(-1, 4),
            category_ids=[NO_ID if state.label_id is None else state.label_id for state in states],
            categories=[Category(label.id, label.name) for label in labels],
            sources=[_SOURCES[state.source] for state in states],
            columns={"object_uuid": np.array([state.id for state in states], dtype="<U36")},
        )

    def history(self, item_id: str, object_id: str) -> tuple[Revision, ...]:
        """All revisions of an object, oldest first, those of conflicts included.

        Raises:
            NotFoundError: the item has no such object.
        """
        with self._database.read() as session:
            item = find_item(session, self._database.project, item_id)
            query = sa.select(ObjectRow).where(ObjectRow.item == item.key, ObjectRow.id == object_id)
            row = session.scalar(query) if is_id(object_id) else None
            if row is None:
                raise NotFoundError(f"The item {item.name!r} has no object {str(object_id)[:60]!r}.")
            return _history(session, row)

    def replay(self, revision_id: str) -> Replay:
        """All that the mask of a revision was made from: the image, and every revision and prompt up to it.

        Raises:
            NotFoundError: the project has no such revision.
        """
        project = self._database.project
        with self._database.read() as session:
            query = (
                sa.select(ObjectRow, ItemRow)
                .join(RevisionRow, RevisionRow.object == ObjectRow.key)
                .join(ItemRow, ItemRow.key == ObjectRow.item)
                .where(RevisionRow.project == project, RevisionRow.id == revision_id)
            )
            found = session.execute(query).one_or_none() if is_id(revision_id) else None
            if found is None:
                raise NotFoundError(f"The project has no revision {str(revision_id)[:60]!r}.")
            by_id = {revision.state.revision_id: revision for revision in _history(session, found[0])}
            chain, step = [], by_id.get(revision_id)
            while step is not None:
                chain.append(step)
                step = by_id.get(step.state.parent_id or "")
            return Replay(item_value(found[1]), tuple(reversed(chain)))


class _Saving:
    """One batch, in its transaction."""

    def __init__(
        self, session: Session, project: int, item: ItemRow, labels: Labels, batch_id: str, author: str
    ) -> None:
        self.session, self.project, self.item = session, project, item
        self.batch_id, self.author, self.time = batch_id, author, now()
        schema = labels.of(session)
        self.label_version, self.label_ids = schema.version, {label.id for label in schema.labels}
        self.label_counts: dict[int, int] = defaultdict(int)
        self.object_count = 0
        self.saved: list[Saved] = []
        self.conflicting: dict[str, str] = {}
        self.added = False

    def run(self, changes: Sequence[Change], measured: Sequence[tuple[tuple[int, ...], int]]) -> SaveResult:
        self._load(changes)
        for change, (box, area) in zip(changes, measured, strict=True):
            self._apply(change, box, area)
        self.session.flush()
        if self.added:
            self._count()
        return SaveResult(tuple(self.saved), self._conflicts())

    def _load(self, changes: Sequence[Change]) -> None:
        """Fetch what the changes refer to, all at once."""
        session, project = self.session, self.project
        object_ids = {change.object_id for change in changes}
        named = {change.revision_id for change in changes} | {change.base_id for change in changes if change.base_id}
        event_ids = {event.id for change in changes for event in change.prompt_events}
        self.objects: dict[str, ObjectRow] = {}
        self.revisions: dict[str, RevisionRow] = {}
        self.heads: dict[int, HeadRow] = {}
        self.known_events: set[str] = set()
        for ids in _parts(object_ids):
            query = sa.select(ObjectRow).where(ObjectRow.project == project, ObjectRow.id.in_(ids))
            self.objects.update({row.id: row for row in session.scalars(query)})
        for keys in _parts({row.key for row in self.objects.values()}):
            heads = session.scalars(sa.select(HeadRow).where(HeadRow.object.in_(keys)))
            self.heads.update({row.object: row for row in heads})
        for ids in _parts(named):
            revisions = sa.select(RevisionRow).where(RevisionRow.project == project, RevisionRow.id.in_(ids))
            self.revisions.update({row.id: row for row in session.scalars(revisions)})
        for ids in _parts(event_ids):
            events = sa.select(PromptEventRow.id).where(PromptEventRow.project == project, PromptEventRow.id.in_(ids))
            self.known_events.update(session.scalars(events))

    def _apply(self, change: Change, box: tuple[int, ...], area: int) -> None:
        row = self.objects.get(change.object_id)
        if row is not None and row.item != self.item.key:
            raise DataError(f"The object {change.object_id} belongs to another item. Make a new id.")
        known = self.revisions.get(change.revision_id)
        if known is not None:
            if row is None or known.object != row.key:
                raise DataError(f"The revision {change.revision_id} belongs to another object. Make a new id.")
            self._note(change, "known", known.conflicting)
            return
        if change.label_id is not None and change.label_id not in self.label_ids:
            raise DataError(f"The object {change.object_id} has the label {change.label_id}, which is not there.")
        if row is None:
            if change.base_id is not None:
                raise DataError(f"The change {change.revision_id} has a base, but there is no object to change.")
            row = ObjectRow(project=self.project, id=change.object_id, item=self.item.key, created_at=self.time)
            self.session.add(row)
            self.session.flush()
            self.objects[row.id] = row
        base = self.revisions.get(change.base_id) if change.base_id else None
        if change.base_id and (base is None or base.object != row.key):
            raise DataError(f"The change {change.revision_id} has the base {change.base_id}, which the object lacks.")
        head = self.heads.get(row.key)
        conflicting = (head.revision if head else None) != (base.key if base else None)
        revision = self._insert(change, row, base, (box, area), conflicting)
        if not conflicting:
            self._move_head(row, head, revision)
        self._note(change, "saved", conflicting)

    def _insert(
        self,
        change: Change,
        row: ObjectRow,
        base: RevisionRow | None,
        measured: tuple[tuple[int, ...], int],
        conflicting: bool,
    ) -> RevisionRow:
        (x0, y0, x1, y1), area = measured
        models = [event.model_version for event in change.prompt_events if event.model_version]
        revision = RevisionRow(
            project=self.project, id=change.revision_id, object=row.key, parent=base.key if base else None,
            batch_id=self.batch_id, counts=change.counts, x0=x0, y0=y0, x1=x1, y1=y1, area=area,
            label_id=change.label_id, label_version=self.label_version, attributes=dict(change.attributes),
            z=float(change.z), source=change.source, author=self.author,
            model_version=change.model_version or (models[-1] if models else None), deleted=change.deleted,
            conflicting=conflicting, active_ms=change.active_ms, created_at=self.time,
        )  # fmt: skip
        self.session.add(revision)
        self.session.flush()
        self.revisions[revision.id] = revision
        for event in change.prompt_events:
            if event.id in self.known_events:
                continue
            self.known_events.add(event.id)
            self.session.add(
                PromptEventRow(
                    project=self.project, id=event.id, revision=revision.key, sequence=event.sequence,
                    kind=event.kind, payload=dict(event.payload), model_version=event.model_version,
                    candidate=event.candidate, latency_ms=event.latency_ms, created_at=self.time,
                )
            )  # fmt: skip
        self.added = True
        return revision

    def _move_head(self, row: ObjectRow, head: HeadRow | None, revision: RevisionRow) -> None:
        if head is not None and not head.deleted:
            self._add_to_counts(head.label_id, -1)
        if not revision.deleted:
            self._add_to_counts(revision.label_id, 1)
        if head is None:
            head = HeadRow(object=row.key, project=self.project, item=self.item.key)
            self.heads[row.key] = head
            self.session.add(head)
        head.revision, head.label_id, head.deleted = revision.key, revision.label_id, revision.deleted

    def _add_to_counts(self, label_id: int | None, number: int) -> None:
        self.object_count += number
        if label_id is not None:
            self.label_counts[label_id] += number

    def _count(self) -> None:
        """Bring what is counted along up to date: the item, and its labels."""
        item = self.item
        item.objects += self.object_count
        item.updated_at = self.time
        item.state = "in_progress" if item.state == "todo" else item.state
        for label_id, number in self.label_counts.items():
            if not number:
                continue
            key = (self.project, label_id, item.position)
            row = self.session.get(ItemLabelRow, key)
            if row is None:
                row = ItemLabelRow(
                    project=self.project, label_id=label_id, position=item.position, item=item.key, objects=0
                )
                self.session.add(row)
            row.objects += number
            if row.objects == 0:
                self.session.delete(row)

    def _note(self, change: Change, status: Literal["saved", "known"], conflicting: bool) -> None:
        if conflicting:
            self.conflicting[change.revision_id] = change.object_id
        else:
            self.saved.append(Saved(change.object_id, change.revision_id, status))

    def _conflicts(self) -> tuple[Conflict, ...]:
        conflicts = []
        parent = aliased(RevisionRow)
        for revision_id, object_id in self.conflicting.items():
            head = self.heads[self.objects[object_id].key]
            query = sa.select(RevisionRow, parent.id).outerjoin(parent, parent.key == RevisionRow.parent)
            row, parent_id = self.session.execute(query.where(RevisionRow.key == head.revision)).one()
            conflicts.append(Conflict(object_id, revision_id, object_value(row, object_id, parent_id)))
        return tuple(conflicts)


def _history(session: Session, row: ObjectRow) -> tuple[Revision, ...]:
    revisions = list(
        session.scalars(sa.select(RevisionRow).where(RevisionRow.object == row.key).order_by(RevisionRow.key))
    )
    ids = {revision.key: revision.id for revision in revisions}
    query = (
        sa.select(PromptEventRow)
        .join(RevisionRow, RevisionRow.key == PromptEventRow.revision)
        .where(RevisionRow.object == row.key)
        .order_by(PromptEventRow.sequence, PromptEventRow.key)
    )
    events = defaultdict(list)
    for event in session.scalars(query):
        events[event.revision].append(event_value(event))
    return tuple(
        Revision(
            object_value(revision, row.id, ids.get(cast(int, revision.parent))),
            revision.conflicting,
            revision.active_ms,
            tuple(events[revision.key]),
        )
        for revision in revisions
    )


def _measure(change: Change, size_hw: tuple[int, int]) -> tuple[tuple[int, ...], int]:
    """Box and area of a mask, in pixels.

    Raises:
        DataError: it is damaged, or of another size.
    """
    rle = Rle(size=list(size_hw), counts=change.counts)
    try:
        area = int(run_lengths(rle)[1::2].sum())
    except ValueError as error:
        raise DataError(f"The mask of object {change.object_id} does not fit the image: {error}") from error
    return tuple(int(side) for side in box_xyxy(rle)), area


def _parts(values: set[Any]) -> list[list[Any]]:
    """Values in parts that fit the parameters of one statement."""
    ordered = sorted(values)
    return [ordered[start : start + 500] for start in range(0, len(ordered), 500)]
