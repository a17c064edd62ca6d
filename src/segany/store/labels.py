"""The label schema of a project, and its versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import ConflictError, DataError, NotFoundError
from segany.core.instance import Category
from segany.store.checks import check_text
from segany.store.database import Database
from segany.store.rows import now
from segany.store.tables import LabelSchemaRow, ProjectRow, RevisionRow
from segany.store.values import Attribute, Label, LabelSchema

PALETTE = (
    "#4f8cff", "#f2994a", "#27ae60", "#bb6bd9", "#eb5757", "#2dc5c5", "#f2c94c", "#8d6e63", "#ff7eb6", "#7bc043",
    "#5c6bc0", "#00897b",
)  # fmt: skip
"""Colors of labels that were made from categories, in turn: those of `LABEL_COLORS` in web/app/colors.ts."""


class Labels:
    """The labels of a project. A change makes a new version; a label that was used is archived, never removed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self) -> LabelSchema:
        """The newest version."""
        with self._database.read() as session:
            return self.of(session)

    def version(self, version: int) -> LabelSchema:
        """A version by its number.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as session:
            row = session.get(LabelSchemaRow, (self._database.project, version))
            if row is None:
                raise NotFoundError(f"The label schema has no version {version}.")
            return LabelSchema(row.version, labels_from_json(row.labels))

    def replace(self, base_version: int, labels: Sequence[Label], author: str) -> LabelSchema:
        """Make a new version.

        Args:
            base_version: the version that the change was made from.
            labels: all of them, in the order they are shown.
            author: who did it.

        Raises:
            ConflictError: the base is not the newest version.
            DataError: two labels have the same id, name or hotkey; a label is missing that was used; or an id had
                been another label's.
        """
        check_text(author, "The author", 0, 200)
        with self._database.write() as session:
            schema = self.of(session)
            if schema.version != base_version:
                raise ConflictError(
                    f"The labels were changed meanwhile: they are at version {schema.version}, not {base_version}. "
                    "Load them again."
                )
            return self._replace(session, schema, labels, author)

    def ensure(self, categories: Iterable[Category], author: str) -> dict[int, int]:
        """The labels' ids by the ids of categories of the same names; labels are added where there are none.

        Raises:
            DataError: the name of a category cannot be that of a label.
        """
        wanted = list(categories)
        known = {label.name: label.id for label in self.current().labels}
        if all(category.name in known for category in wanted):
            return {category.id: known[category.name] for category in wanted}
        with self._database.write() as session:
            schema = self.of(session)
            by_name = {label.name: label for label in schema.labels}
            next_id = 1 + max(self._ids_ever(session), default=0)
            added: list[Label] = []
            for category in wanted:
                if category.name not in by_name:
                    color = PALETTE[len(by_name) % len(PALETTE)]
                    by_name[category.name] = Label(next_id + len(added), category.name, color)
                    added.append(by_name[category.name])
            if added:
                self._replace(session, schema, [*schema.labels, *added], author)
            return {category.id: by_name[category.name].id for category in wanted}

    def of(self, session: Session) -> LabelSchema:
        """The newest version, in a transaction."""
        version = session.get_one(ProjectRow, self._database.project).label_version
        row = session.get_one(LabelSchemaRow, (self._database.project, version))
        return LabelSchema(version, labels_from_json(row.labels))

    def _replace(self, session: Session, schema: LabelSchema, labels: Sequence[Label], author: str) -> LabelSchema:
        check_labels(labels)
        kept = {label.id for label in labels}
        for label in schema.labels:
            if label.id not in kept and self._is_used(session, label.id):
                raise DataError(f"Label {label.name!r} is used by objects. Archive it instead of removing it.")
        before = {label.id for label in schema.labels}
        for label in labels:
            if label.id not in before and label.id in self._ids_ever(session):
                raise DataError(f"The id {label.id} of label {label.name!r} was another label's. Take a new one.")
        project = self._database.project
        session.add(
            LabelSchemaRow(
                project=project, version=schema.version + 1, labels=labels_to_json(labels), author=author,
                created_at=now(),
            )
        )  # fmt: skip
        session.get_one(ProjectRow, project).label_version = schema.version + 1
        return LabelSchema(schema.version + 1, tuple(labels))

    def _is_used(self, session: Session, label_id: int) -> bool:
        used = sa.exists().where(RevisionRow.project == self._database.project, RevisionRow.label_id == label_id)
        return bool(session.scalar(sa.select(used)))

    def _ids_ever(self, session: Session) -> set[int]:
        versions = session.scalars(
            sa.select(LabelSchemaRow.labels).where(LabelSchemaRow.project == self._database.project)
        )
        return {label["id"] for labels in versions for label in labels}


def check_labels(labels: Sequence[Label]) -> None:
    """Raise `DataError` where two labels have the same id, name, or hotkey."""
    if len(labels) > 5000:
        raise DataError(f"{len(labels):,} labels are too many: at most 5,000.")
    for what, values in (
        ("id", [label.id for label in labels]),
        ("name", [label.name for label in labels]),
        ("hotkey", [label.hotkey for label in labels if label.hotkey and not label.archived]),
    ):
        if len(set(values)) != len(values):
            raise DataError(f"Two labels have the {what} {Counter(values).most_common(1)[0][0]!r}.")


def labels_to_json(labels: Iterable[Label]) -> list[dict[str, Any]]:
    """Labels as they are kept."""
    return [asdict(label) for label in labels]


def labels_from_json(values: Any) -> tuple[Label, ...]:
    """Labels that were kept.

    Raises:
        DataError: they are damaged.
    """
    try:
        return tuple(
            Label(
                **{
                    **value,
                    "attributes": tuple(
                        Attribute(item["name"], item["type"], tuple(item["choices"])) for item in value["attributes"]
                    ),
                }
            )
            for value in values
        )
    except (TypeError, KeyError) as error:
        raise DataError(f"The labels are damaged: {error!r}.") from error
