"""Saving a batch of changes: each once, none lost, and those made from a stale state beside the newer one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import DataError
from segany.core.rle import Rle, box_xyxy, run_lengths
from segany.store.labels import Labels
from segany.store.revisions import Change, Conflict, Saved, SaveResult
from segany.store.rows import now, object_value
from segany.store.tables import HeadRow, ItemLabelRow, ItemRow, ObjectRow, PromptEventRow, RevisionRow


class Saving:
    """One batch, in its transaction. Rows are inserted many at a time, where none needs the key of another."""

    def __init__(
        self, session: Session, project: int, item: ItemRow, labels: Labels, batch_id: str, author: str
    ) -> None:
        self.session, self.project, self.item = session, project, item
        self.batch_id, self.author, self.time = batch_id, author, now()
        schema = labels.of(session)
        self.label_version, self.label_ids = schema.version, {label.id for label in schema.labels}
        self.objects: dict[str, ObjectRow] = {}
        self.revisions: dict[str, RevisionRow] = {}
        self.heads: dict[str, RevisionRow] = {}  # by object
        self.added: list[tuple[Change, RevisionRow]] = []

    def run(self, changes: Sequence[Change], measured: Sequence[tuple[tuple[int, ...], int]]) -> SaveResult:
        """Save the changes, whose boxes and areas are those that `measure` gives."""
        self._load(changes)
        before = dict(self.heads)
        self._add_objects(changes)
        saved: list[Saved] = []
        conflicting: list[RevisionRow] = []
        owners = {}
        for change, measures in zip(changes, measured, strict=True):
            row, status = self._apply(change, measures)
            owners[row.id] = change.object_id
            if row.conflicting:
                conflicting.append(row)
            else:
                saved.append(Saved(change.object_id, row.id, status))
        self.session.flush()
        if self.added:
            self._add_events()
            self._move_heads(before)
            self.session.flush()
        return SaveResult(tuple(saved), tuple(self._conflict(owners[row.id], row) for row in conflicting))

    def _load(self, changes: Sequence[Change]) -> None:
        """Fetch what the changes refer to, all at once."""
        session, project = self.session, self.project
        for ids in _parts({change.object_id for change in changes}):
            query = sa.select(ObjectRow).where(ObjectRow.project == project, ObjectRow.id.in_(ids))
            self.objects.update({row.id: row for row in session.scalars(query)})
        names = {row.key: row.id for row in self.objects.values()}
        for keys in _parts(set(names)):
            heads = sa.select(RevisionRow).join(HeadRow, HeadRow.revision == RevisionRow.key)
            for row in session.scalars(heads.where(HeadRow.object.in_(keys))):
                self.heads[names[row.object]] = row
        named = {change.revision_id for change in changes} | {change.base_id for change in changes if change.base_id}
        for ids in _parts(named):
            revisions = sa.select(RevisionRow).where(RevisionRow.project == project, RevisionRow.id.in_(ids))
            self.revisions.update({row.id: row for row in session.scalars(revisions)})

    def _add_objects(self, changes: Sequence[Change]) -> None:
        for change in changes:
            row = self.objects.get(change.object_id)
            if row is not None:
                if row.item is not None and row.item != self.item.key:
                    raise DataError(f"The object {change.object_id} belongs to another item. Make a new id.")
                continue
            if change.revision_id in self.revisions:
                raise DataError(f"The revision {change.revision_id} belongs to another object. Make a new id.")
            self.objects[change.object_id] = ObjectRow(
                project=self.project, id=change.object_id, item=self.item.key, created_at=self.time
            )
        self.session.add_all(self.objects.values())
        self.session.flush()

    def _apply(
        self, change: Change, measures: tuple[tuple[int, ...], int]
    ) -> tuple[RevisionRow, Literal["saved", "known"]]:
        key = self.objects[change.object_id].key
        known = self.revisions.get(change.revision_id)
        if known is not None:
            if known.object != key:
                raise DataError(f"The revision {change.revision_id} belongs to another object. Make a new id.")
            return known, "known"
        if change.label_id is not None and change.label_id not in self.label_ids:
            raise DataError(f"The object {change.object_id} has the label {change.label_id}, which is not there.")
        base = self.revisions.get(change.base_id) if change.base_id else None
        if base is not None and base.object != key:
            raise DataError(f"The change {change.revision_id} has a base that is another object's, {change.base_id}.")
        if base is not None and base.key is None:
            self.session.flush()
        row = self._revision(change, key, base, measures)
        self.session.add(row)
        self.revisions[row.id] = row
        self.added.append((change, row))
        if not row.conflicting:
            self.heads[change.object_id] = row
        return row, "saved"

    def _revision(
        self, change: Change, key: int, base: RevisionRow | None, measures: tuple[tuple[int, ...], int]
    ) -> RevisionRow:
        (x0, y0, x1, y1), area = measures
        models = [event.model_version for event in change.prompt_events if event.model_version]
        head = self.heads.get(change.object_id)
        return RevisionRow(
            project=self.project, id=change.revision_id, object=key, parent=base.key if base else None,
            batch_id=self.batch_id, counts=change.counts, x0=x0, y0=y0, x1=x1, y1=y1, area=area,
            label_id=change.label_id, label_version=self.label_version, attributes=dict(change.attributes),
            z=float(change.z), source=change.source, author=self.author,
            model_version=change.model_version or (models[-1] if models else None), deleted=change.deleted,
            conflicting=head is not base, active_ms=change.active_ms,
            created_at=self.time,
        )  # fmt: skip

    def _add_events(self) -> None:
        """Add the prompt events, except those that an earlier revision has already."""
        known: set[str] = set()
        for ids in _parts({event.id for change, _ in self.added for event in change.prompt_events}):
            query = sa.select(PromptEventRow.id).where(PromptEventRow.project == self.project)
            known.update(self.session.scalars(query.where(PromptEventRow.id.in_(ids))))
        for change, row in self.added:
            for event in change.prompt_events:
                if event.id in known:
                    continue
                known.add(event.id)
                self.session.add(
                    PromptEventRow(
                        project=self.project, id=event.id, revision=row.key, sequence=event.sequence,
                        kind=event.kind, payload=dict(event.payload), model_version=event.model_version,
                        candidate=event.candidate, latency_ms=event.latency_ms, created_at=self.time,
                    )
                )  # fmt: skip

    def _move_heads(self, before: dict[str, RevisionRow]) -> None:
        """Make the new revisions the states of their objects, and bring what is counted along up to date."""
        item, counts = self.item, Counter[int]()
        item.updated_at = self.time
        item.state = "in_progress" if item.state == "todo" else item.state
        for object_id, head in self.heads.items():
            old = before.get(object_id)
            if old is head:
                continue
            for row, number in ((old, -1), (head, 1)):
                if row is not None and not row.deleted:
                    item.objects += number
                    if row.label_id is not None:
                        counts[row.label_id] += number
            values = {"revision": head.key, "label_id": head.label_id, "deleted": head.deleted}
            if old is None:
                self.session.add(HeadRow(object=head.object, project=self.project, item=item.key, **values))
            else:
                self.session.execute(sa.update(HeadRow).where(HeadRow.object == head.object).values(**values))
        for label_id, number in counts.items():
            if number:
                self._count(label_id, number)

    def _count(self, label_id: int, number: int) -> None:
        row = self.session.get(ItemLabelRow, (self.project, label_id, self.item.position))
        if row is None:
            row = ItemLabelRow(
                project=self.project, label_id=label_id, position=self.item.position, item=self.item.key, objects=0
            )
            self.session.add(row)
        row.objects += number
        if row.objects == 0:
            self.session.delete(row)

    def _conflict(self, object_id: str, row: RevisionRow) -> Conflict:
        head = self.heads[object_id]
        parent = None if head.parent is None else self.session.get_one(RevisionRow, head.parent).id
        return Conflict(object_id, row.id, object_value(head, object_id, parent))


def measure(change: Change, size_hw: tuple[int, int]) -> tuple[tuple[int, ...], int]:
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
