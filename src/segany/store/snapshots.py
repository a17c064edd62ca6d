"""Snapshots: the annotations that a model is trained and measured on, frozen as ids of revisions."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from segany.core.errors import NotFoundError
from segany.store.checks import check_choice, check_id, is_id
from segany.store.database import Database
from segany.store.revisions import ObjectState, RevisionSource
from segany.store.rows import ITEM_COLUMNS, STATE_COLUMNS, item_value, now, object_value
from segany.store.tables import HeadRow, ItemRow, ObjectRow, RevisionRow, SnapshotRevisionRow, SnapshotRow
from segany.store.values import Item, ItemState, Snapshot, Split

_AT_ONCE = 500  # ids of a query, rows of an insert


class Snapshots:
    """The snapshots of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def heads(
        self, split: Split, states: Sequence[ItemState], sources: Sequence[RevisionSource], *, purely: bool = False
    ) -> tuple[str, ...]:
        """The revisions that are the states of objects now, in the order in which they were saved.

        Args:
            split: of their items.
            states: of their items.
            sources: of the revisions.
            purely: leave out objects of which any earlier revision has another source.
        """
        earlier = aliased(RevisionRow)
        query = (
            sa.select(RevisionRow.id)
            .join(HeadRow, HeadRow.revision == RevisionRow.key)
            .join(ItemRow, ItemRow.key == HeadRow.item)
            .where(
                ItemRow.project == self._database.project,
                ItemRow.split == split,
                ItemRow.state.in_(states),
                HeadRow.deleted.is_(False),
                RevisionRow.area > 0,
                RevisionRow.source.in_(sources),
            )
            .order_by(RevisionRow.key)
        )
        if purely:
            query = query.where(
                ~sa.exists().where(earlier.object == RevisionRow.object, earlier.source.not_in(sources))
            )
        with self._database.read() as session:
            return tuple(session.scalars(query))

    def put(self, snapshot_id: str, revision_ids: Mapping[Split, Sequence[str]]) -> Snapshot:
        """Freeze revisions under an id that the caller made. A snapshot that is there already stays as it is.

        Raises:
            NotFoundError: the project has no such revision.
        """
        check_id(snapshot_id, "The id of a snapshot")
        for split in revision_ids:
            check_choice(split, get_args(Split), "The side of a snapshot")
        wanted = [(split, one) for split, ids in sorted(revision_ids.items()) for one in ids]
        with self._database.write() as session:
            row = self._find(session, snapshot_id)
            if row is None:
                keys = self._keys(session, [one for _, one in wanted])
                digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
                row = SnapshotRow(project=self._database.project, id=snapshot_id, digest=digest, created_at=now())
                session.add(row)
                session.flush()
                for start in range(0, len(wanted), _AT_ONCE):
                    rows = [
                        {"snapshot": row.key, "revision": keys[one], "split": split}
                        for split, one in wanted[start : start + _AT_ONCE]
                    ]
                    session.execute(sa.insert(SnapshotRevisionRow), rows)
        return self.get(snapshot_id)

    def get(self, snapshot_id: str) -> Snapshot:
        """A snapshot.

        Raises:
            NotFoundError: the project has no such snapshot.
        """
        with self._database.read() as session:
            row = self._find(session, snapshot_id)
            if row is None:
                raise NotFoundError(f"The project has no snapshot {str(snapshot_id)[:60]!r}.")
            ids: dict[Split, list[str]] = defaultdict(list)
            query = sa.select(SnapshotRevisionRow.split, RevisionRow.id)
            query = query.join(RevisionRow, RevisionRow.key == SnapshotRevisionRow.revision)
            query = query.where(SnapshotRevisionRow.snapshot == row.key).order_by(RevisionRow.key)
            for split, revision_id in session.execute(query):
                ids[cast(Split, split)].append(revision_id)
            return Snapshot(row.id, row.digest, {split: tuple(each) for split, each in ids.items()}, row.created_at)

    def objects(self, snapshot_id: str, split: Split) -> dict[Item, tuple[ObjectState, ...]]:
        """The objects of one side as they were, by their items, in the order in which items were added."""
        parent = aliased(RevisionRow)
        query = (
            sa.select(*STATE_COLUMNS, ObjectRow.id.label("object_id"), parent.id.label("parent_id"), ObjectRow.item)
            .select_from(SnapshotRevisionRow)
            .join(SnapshotRow, SnapshotRow.key == SnapshotRevisionRow.snapshot)
            .join(RevisionRow, RevisionRow.key == SnapshotRevisionRow.revision)
            .join(ObjectRow, ObjectRow.key == RevisionRow.object)
            .outerjoin(parent, parent.key == RevisionRow.parent)
            .where(
                SnapshotRow.project == self._database.project,
                SnapshotRow.id == snapshot_id,
                SnapshotRevisionRow.split == split,
            )
            .order_by(RevisionRow.z, ObjectRow.key)
        )
        with self._database.read() as session:
            states: dict[int, list[ObjectState]] = defaultdict(list)
            for row in session.execute(query):
                states[row.item].append(object_value(row, row.object_id, row.parent_id))
            items: dict[int, Item] = {}
            keys = sorted(states)
            for start in range(0, len(keys), _AT_ONCE):
                wanted = sa.select(*ITEM_COLUMNS).where(ItemRow.key.in_(keys[start : start + _AT_ONCE]))
                items |= {row.key: item_value(row) for row in session.execute(wanted)}
        ordered = sorted(items, key=lambda key: items[key].position)
        return {items[key]: tuple(states[key]) for key in ordered}

    def _find(self, session: Session, snapshot_id: str) -> SnapshotRow | None:
        if not is_id(snapshot_id):
            return None
        query = sa.select(SnapshotRow).where(
            SnapshotRow.project == self._database.project, SnapshotRow.id == snapshot_id
        )
        return session.scalar(query)

    def _keys(self, session: Session, ids: Sequence[str]) -> dict[str, int]:
        keys: dict[str, int] = {}
        for start in range(0, len(ids), _AT_ONCE):
            query = sa.select(RevisionRow.id, RevisionRow.key).where(
                RevisionRow.project == self._database.project, RevisionRow.id.in_(ids[start : start + _AT_ONCE])
            )
            keys |= {row.id: row.key for row in session.execute(query)}
        missing = next((one for one in ids if one not in keys), None)
        if missing is not None:
            raise NotFoundError(f"The project has no revision {missing[:60]!r}.")
        return keys
