"""The images of a project: adding, listing, opening, and finding them again where they were moved."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from segany.core.errors import DataError, ImageError, NotFoundError
from segany.core.files import path_errors
from segany.store.blobs import Blobs
from segany.store.checks import check_choice, check_number, check_text
from segany.store.database import Database
from segany.store.references import check_below, files_by_content, is_there, reference
from segany.store.rows import ITEM_COLUMNS, find_item, item_value, now
from segany.store.tables import ItemLabelRow, ItemRow, RootRow
from segany.store.values import (
    MAX_NAME,
    Item,
    ItemFilter,
    ItemPage,
    ItemState,
    NewItem,
    Place,
    Relinked,
    Root,
    Split,
)

MAX_PAGE = 500
"""Items of a page at most."""

FEW = 500
"""Items that are looked up by their keys at most."""

SPLITS: tuple[tuple[Split, float], ...] = (("train", 0.8), ("val", 0.1), ("test", 0.1))
"""The share of items on each side."""


def split_of(sha256: str) -> Split:
    """The side on which a file with that content is: the same for ever and on every machine."""
    place = int(sha256[:13], 16) / 16**13
    for split, share in SPLITS[:-1]:
        if place < share:
            return split
        place -= share
    return SPLITS[-1][0]


class Items:
    """The images of a project, in the order in which they were added."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    # Adding.

    def add_root(self, name: str, folder: str | Path) -> Root:
        """Allow references to images below a folder, or move a root to another folder.

        Args:
            name: of the root.
            folder: its folder; links in it are followed now.

        Raises:
            DataError: the folder is not there.
        """
        check_text(name, "The name of a root", 1, 100)
        with path_errors(Path(folder), DataError):
            place = Path(folder).resolve()
            if not place.is_dir():
                raise DataError(f"There is no folder {place}. Check the path.")
        check_text(str(place), "The path of a root", 1, 4000)
        with self._database.write() as session:
            session.merge(RootRow(project=self._database.project, name=name, path=str(place)))
        return Root(name, place)

    def roots(self) -> tuple[Root, ...]:
        """All roots, by name."""
        with self._database.read() as session:
            rows = session.scalars(
                sa.select(RootRow).where(RootRow.project == self._database.project).order_by(RootRow.name)
            )
            return tuple(Root(row.name, Path(row.path)) for row in rows)

    def add(self, items: Sequence[NewItem]) -> tuple[str, ...]:
        """Add images, and return their ids in the same order.

        A reference to a file that an item refers to already, and a blob that an item of the same name has, are not
        added again: the id is that item's.

        Raises:
            DataError: a root is not known, or a path leads out of it.
            NotFoundError: the bytes are no blob of the project.
        """
        project = self._database.project
        with self._database.write() as session:
            roots = {root.name: root.path for root in self._roots(session)}
            last = session.scalar(sa.select(sa.func.max(ItemRow.position)).where(ItemRow.project == project))
            position = 0 if last is None else last + 1
            known = self._known(session, items)
            rows = []
            for item in items:
                identity = _identity(item)
                if identity in known:
                    continue
                if item.root is not None and item.root not in roots:
                    raise DataError(f"There is no root {item.root!r}. Add it first.")
                if item.root is not None and item.path is not None:
                    check_below(roots[item.root], item.path)
                rows.append(self._row(item, position))
                known[identity] = rows[-1].id
                position += 1
            self._check_blobs(session, rows)
            session.add_all(rows)
            session.flush()
            return tuple(known[_identity(item)] for item in items)

    def _row(self, item: NewItem, position: int) -> ItemRow:
        time = now()
        return ItemRow(
            project=self._database.project, id=str(uuid.uuid4()), position=position, name=item.name,
            name_key=name_key(item.name), name_order=name_order(item.name),
            sha256=item.sha256, byte_count=item.byte_count, media_type=item.media_type,
            width=item.width, height=item.height, blob=None if item.root is not None else item.sha256, root=item.root,
            path=item.path, state="todo", split=split_of(item.sha256), created_at=time, updated_at=time,
        )  # fmt: skip

    def _known(self, session: Session, items: Sequence[NewItem]) -> dict[tuple[str | None, str, str], str]:
        """The ids of items that are there already."""
        known = {}
        for start in range(0, len(items), 500):
            part = items[start : start + 500]
            query = sa.select(ItemRow.id, ItemRow.root, ItemRow.path, ItemRow.sha256, ItemRow.name).where(
                ItemRow.project == self._database.project,
                sa.or_(
                    ItemRow.path.in_([item.path for item in part if item.path is not None]),
                    ItemRow.sha256.in_([item.sha256 for item in part]) & ItemRow.blob.is_not(None),
                ),
            )
            for row in session.execute(query):
                if row.root is not None:
                    known[row.root, cast(str, row.path), ""] = row.id
                else:
                    known[None, row.sha256, row.name] = row.id
        return known

    def _check_blobs(self, session: Session, rows: Sequence[ItemRow]) -> None:
        for sha256 in {row.blob for row in rows if row.blob is not None}:
            self._blobs.require_row(session, sha256)

    # Listing.

    def get(self, item_id: str) -> Item:
        """An item by its id.

        Raises:
            NotFoundError: the project has no such item.
        """
        with self._database.read() as session:
            return item_value(find_item(session, self._database.project, item_id))

    def with_sha256(self, sha256: str) -> tuple[Item, ...]:
        """The items with a file, by position: it may have been added under several names."""
        with self._database.read() as session:
            query = sa.select(*ITEM_COLUMNS).where(ItemRow.project == self._database.project, ItemRow.sha256 == sha256)
            return tuple(item_value(row) for row in session.execute(query.order_by(ItemRow.position)))

    def page(self, chosen: ItemFilter | None = None, offset: int = 0, limit: int = 100) -> ItemPage:
        """Some of the items, and how many there are in all.

        Args:
            chosen: which ones and in what order; all of them where None.
            offset: how many to leave out.
            limit: at most `MAX_PAGE`.

        Raises:
            DataError: `offset` or `limit` is out of range.
        """
        check_number(offset, "The offset", 0, 2**62)
        check_number(limit, "The limit", 0, MAX_PAGE)
        chosen = chosen or ItemFilter()
        with self._database.read() as session:
            conditions, order = self._conditions(session, chosen), _order(chosen)
            total = _count(session, conditions)
            if limit == 0 or offset >= total:
                return ItemPage(total, ())
            keys = (
                sa.select(ItemRow.key).correlate(None).where(*conditions).order_by(*order).offset(offset).limit(limit)
            )
            query = sa.select(*ITEM_COLUMNS).where(ItemRow.key.in_(keys.correlate(None)))
            rows = session.execute(query.order_by(*order))
            return ItemPage(total, tuple(item_value(row) for row in rows))

    def iterate(self, chosen: ItemFilter | None = None) -> Iterator[Item]:
        """All items that a filter lets through, by position; items may be changed meanwhile."""
        chosen = replace(chosen or ItemFilter(), order="position")
        last = -1
        while True:
            with self._database.read() as session:
                conditions = self._conditions(session, chosen)
                query = sa.select(*ITEM_COLUMNS).where(*conditions, ItemRow.position > last)
                rows = session.execute(query.order_by(ItemRow.position).limit(MAX_PAGE))
                items = [item_value(row) for row in rows]
            yield from items
            if len(items) < MAX_PAGE:
                return
            last = items[-1].position

    def place(self, item_id: str, chosen: ItemFilter | None = None) -> Place:
        """Where an item stands, and what comes before and after it.

        Args:
            item_id: the item, which the filter need not let through.
            chosen: which items there are and in what order; all of them where None.

        Raises:
            NotFoundError: the project has no such item.
        """
        chosen = chosen or ItemFilter()
        with self._database.read() as session:
            row = find_item(session, self._database.project, item_id)
            conditions, columns = self._conditions(session, chosen), _sorted_by(chosen)
            here = sa.tuple_(*(sa.literal(getattr(row, column.key), column.type) for column in columns))
            order = sa.tuple_(*columns)
            before, after = order < here, order > here
            forward, backward = [column.asc() for column in columns], [column.desc() for column in columns]
            if chosen.order.startswith("-"):
                before, after, forward, backward = after, before, backward, forward
            query = sa.select(ItemRow.id).where(*conditions).limit(1)
            return Place(
                index=_count(session, [*conditions, before]),
                total=_count(session, conditions),
                previous_id=session.scalar(query.where(before).order_by(*backward)),
                next_id=session.scalar(query.where(after).order_by(*forward)),
            )

    def count_by_state(self) -> dict[ItemState, int]:
        """How many items there are of each state."""
        query = sa.select(ItemRow.state, sa.func.count()).where(ItemRow.project == self._database.project)
        with self._database.read() as session:
            counts = {row[0]: row[1] for row in session.execute(query.group_by(ItemRow.state))}
        return {state: counts.get(state, 0) for state in get_args(ItemState)}

    def _conditions(self, session: Session, chosen: ItemFilter) -> list[sa.ColumnElement[bool]]:
        conditions = self._has_name(session, chosen.text)
        if chosen.state is not None:
            conditions.append(ItemRow.state == chosen.state)
        if chosen.label_ids:
            has_label = [
                ItemLabelRow.project == self._database.project, ItemLabelRow.label_id.in_(chosen.label_ids),
            ]  # fmt: skip
            if len(chosen.label_ids) == 1:  # then an item comes once
                conditions += [ItemLabelRow.item == ItemRow.key, *has_label]
            else:
                conditions.append(ItemRow.key.in_(sa.select(ItemLabelRow.item).where(*has_label)))
        return conditions

    def _has_name(self, session: Session, text: str) -> list[sa.ColumnElement[bool]]:
        """Whether an item is of the project, and a text part of its name.

        Where few names have it, the index of names alone finds them, and other conditions need not be tried on all.
        """
        is_here = ItemRow.project == self._database.project
        if not text:
            return [is_here]
        has_text = ItemRow.name_key.contains(name_key(text), autoescape=True)
        keys = session.scalars(sa.select(ItemRow.key).where(is_here, has_text).limit(FEW + 1)).all()
        return [is_here, has_text] if len(keys) > FEW else [ItemRow.key.in_(keys)]

    # Changing and opening.

    def set_state(self, item_id: str, state: ItemState) -> Item:
        """Change an item's state.

        Raises:
            NotFoundError: the project has no such item.
            DataError: there is no such state.
        """
        check_choice(state, get_args(ItemState), "The state of an item")
        with self._database.write() as session:
            row = find_item(session, self._database.project, item_id)
            row.state, row.updated_at = state, now()
            session.flush()
            return item_value(row)

    def file(self, item_id: str) -> Path:
        """The file of an image, which has the size it had when it was added.

        Raises:
            NotFoundError: the project has no such item.
            ImageError: the file was moved, changed or deleted, or now lies outside its root.
        """
        with self._database.read() as session:
            row = find_item(session, self._database.project, item_id)
            if row.blob is not None:
                try:
                    return self._blobs.path(row.blob)
                except NotFoundError as error:
                    raise ImageError(f"The image {row.name!r} is missing. {error}") from error
            root = session.get_one(RootRow, (self._database.project, row.root))
            return reference(Path(root.path), row)

    def relink(self, root: str, folder: str | Path | None = None) -> Relinked:
        """Find images again that were moved or renamed, by their content.

        Args:
            root: its images are looked for.
            folder: where to look; the root moves there. Where None, in the root's own folder.

        Raises:
            NotFoundError: there is no such root.
            DataError: the folder is not there.
        """
        if root not in {known.name for known in self.roots()}:
            raise NotFoundError(f"The project has no root {root!r}.")
        if folder is not None:
            self.add_root(root, folder)
        place = next(known.path for known in self.roots() if known.name == root)
        with self._database.read() as session:
            query = sa.select(ItemRow).where(ItemRow.project == self._database.project, ItemRow.root == root)
            rows = list(session.scalars(query.where(ItemRow.blob.is_(None)).order_by(ItemRow.position)))
        lost = [row for row in rows if not is_there(place, row)]
        files = files_by_content(place, {row.byte_count for row in lost})
        taken = {row.path for row in rows} - {row.path for row in lost}
        moved: dict[int, str] = {}
        for row in lost:
            path = next((path for path in files.get(row.sha256, ()) if path not in taken), None)
            if path is not None:
                moved[row.key] = path
                taken.add(path)
        with self._database.write() as session:
            for key in moved:  # two files may have changed their names with each other
                session.get_one(ItemRow, key).path = f"\n{key}"
            session.flush()
            for key, path in moved.items():
                session.get_one(ItemRow, key).path = path
        return Relinked(len(moved), tuple(item_value(row) for row in lost if row.key not in moved))

    def find_moved(self, files: Sequence[NewItem]) -> tuple[NewItem, ...]:
        """Let items whose files are missing refer to files of the same content.

        Args:
            files: references to files that no item refers to, below known roots.

        Returns:
            Those of the files that no such item has the content of.
        """
        moved, rest = [], []
        with self._database.read() as session:
            roots = {root.name: root.path for root in self._roots(session)}
            query = sa.select(ItemRow).where(ItemRow.project == self._database.project, ItemRow.blob.is_(None))
            query = query.where(ItemRow.sha256.in_({file.sha256 for file in files})).order_by(ItemRow.position)
            lost: dict[str, list[int]] = {}
            for row in session.scalars(query):
                if not is_there(roots[cast(str, row.root)], row):
                    lost.setdefault(row.sha256, []).append(row.key)
        for file in files:
            if keys := lost.get(file.sha256):
                moved.append((keys.pop(0), file))
            else:
                rest.append(file)
        if moved:
            with self._database.write() as session:
                for key, file in moved:
                    row = session.get_one(ItemRow, key)
                    row.root, row.path = file.root, file.path
        return tuple(rest)

    def _roots(self, session: Session) -> list[Root]:
        rows = session.scalars(sa.select(RootRow).where(RootRow.project == self._database.project))
        return [Root(row.name, Path(row.path)) for row in rows]


def name_key(name: str) -> str:
    """What names are found by: the name without case."""
    return name.casefold()[:MAX_NAME]


def name_order(name: str) -> str:
    """What names are sorted by: the name without case, and numbers in it as numbers."""
    return re.sub(r"[0-9]+", lambda number: number[0].zfill(12), name.casefold())[:MAX_NAME]


def _identity(item: NewItem) -> tuple[str | None, str, str]:
    return (None, item.sha256, item.name) if item.path is None else (item.root, item.path, "")


def _sorted_by(chosen: ItemFilter) -> list[InstrumentedAttribute[Any]]:
    """Columns to sort by; the position decides among equals, in the same direction, so that one index serves."""
    column = {"name": ItemRow.name_order, "updated_at": ItemRow.updated_at, "objects": ItemRow.objects}.get(
        chosen.order.lstrip("-")
    )
    return [ItemRow.position] if column is None else [column, ItemRow.position]


def _order(chosen: ItemFilter) -> list[sa.ColumnElement[Any]]:
    return [column.desc() if chosen.order.startswith("-") else column.asc() for column in _sorted_by(chosen)]


def _count(session: Session, conditions: list[sa.ColumnElement[bool]]) -> int:
    return session.scalar(sa.select(sa.func.count(ItemRow.key)).where(*conditions)) or 0
