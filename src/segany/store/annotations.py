"""The objects of items: saving changes, reading states, and what every mask was made from."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from segany.core.errors import DataError, NotFoundError
from segany.core.instance import NO_ID, Category, Source
from segany.core.instances import Instances
from segany.store.checks import check_id, check_text, is_id
from segany.store.database import Database
from segany.store.labels import Labels
from segany.store.revisions import Change, ObjectState, Replay, Revision, RevisionSource, SaveResult
from segany.store.rows import STATE_COLUMNS, event_value, find_item, item_value, object_value
from segany.store.saving import Saving, measure
from segany.store.tables import HeadRow, ItemRow, ObjectRow, PromptEventRow, RevisionRow

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
        So is one whose base never arrived, unless the object is new.
        An item "todo" becomes "in_progress".

        Args:
            item_id: the item.
            batch_id: UUID that the client made; the same one when it repeats the request.
            changes: applied in order; a later one may have an earlier one as its base.
            author: who made them.

        Raises:
            NotFoundError: the project has no such item.
            DataError: a mask does not fit the image, an object or revision is another item's, a label is not
                known.
            OutputError: there is no space. Nothing was saved.
        """
        check_id(batch_id, "The id of a batch")
        check_text(author, "The author", 0, 200)
        if len(changes) > MAX_CHANGES:
            raise DataError(f"{len(changes):,} changes are too many for one batch: at most {MAX_CHANGES:,}.")
        with self._database.read() as session:  # what takes time is done before others have to wait
            size_hw = item_value(find_item(session, self._database.project, item_id)).size_hw
        measured = [measure(change, size_hw) for change in changes]
        with self._database.write() as session:
            item = find_item(session, self._database.project, item_id)
            return Saving(session, self._database.project, item, self._labels, batch_id, author).run(changes, measured)

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
                sa.select(*STATE_COLUMNS, ObjectRow.id.label("object_id"), parent.id.label("parent_id"))
                .select_from(HeadRow)
                .join(RevisionRow, RevisionRow.key == HeadRow.revision)
                .join(ObjectRow, ObjectRow.key == HeadRow.object)
                .outerjoin(parent, parent.key == RevisionRow.parent)
                .where(HeadRow.item == item.key)
                .order_by(RevisionRow.z, ObjectRow.key)
            )
            if not deleted:
                query = query.where(HeadRow.deleted.is_(False))
            return tuple(object_value(row, row.object_id, row.parent_id) for row in session.execute(query))

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
