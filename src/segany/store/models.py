"""The models of a project: which one annotates, those that were refused or retired, and what each was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import ConflictError, NotFoundError
from segany.store.blobs import Blobs
from segany.store.checks import check_id, check_json, check_text, is_id
from segany.store.database import Database
from segany.store.rows import now
from segany.store.tables import ModelVersionRow, SnapshotRow
from segany.store.values import MAX_JSON, ModelState, ModelVersion

MEDIA_TYPE = "application/x-safetensors"


class Models:
    """The model versions of a project. At most one is current."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    def list(self) -> tuple[ModelVersion, ...]:
        """All versions, the first one first."""
        with self._database.read() as session:
            rows = session.scalars(self._all().order_by(ModelVersionRow.number)).all()
            return tuple(self._value(session, row) for row in rows)

    def current(self) -> ModelVersion | None:
        """The version that annotates; None before the engine was started."""
        with self._database.read() as session:
            row = session.scalar(self._all().where(ModelVersionRow.state == "current"))
            return None if row is None else self._value(session, row)

    def get(self, version: str | int) -> ModelVersion:
        """A version by its id or number.

        Raises:
            NotFoundError: the project has no such version.
        """
        with self._database.read() as session:
            return self._value(session, self._found(session, version))

    def begin(
        self,
        version_id: str,
        *,
        model: str,
        recipe: str = "",
        parent_id: str | None = None,
        snapshot_id: str | None = None,
        state: ModelState = "candidate",
        file: bytes | None = None,
    ) -> ModelVersion:
        """Add a version under an id that the caller made. One that is there already stays as it is.

        Args:
            version_id: UUID.
            model, recipe, parent_id, snapshot_id, state: as in `ModelVersion`.
            file: its file, if there is one.

        Raises:
            ConflictError: it is to be current, and another version is.
            NotFoundError: the project has no such parent or snapshot.
        """
        check_id(version_id, "The id of a model version")
        check_text(model, "The name of a model", 1, 500)
        check_text(recipe, "The name of a recipe", 0, 200)
        sha256 = None if file is None else self._blobs.put(file, MEDIA_TYPE)
        with self._database.write() as session:
            row = self._row(session, version_id)
            if row is None:
                if state == "current" and session.scalar(self._all().where(ModelVersionRow.state == "current")):
                    raise ConflictError("The project has a current model already.")
                last = session.scalar(
                    sa.select(sa.func.max(ModelVersionRow.number)).where(
                        ModelVersionRow.project == self._database.project
                    )
                )
                row = ModelVersionRow(
                    project=self._database.project, id=version_id, number=(last or 0) + 1, state=state, model=model,
                    blob=sha256, parent=self._found(session, parent_id).key if parent_id else None,
                    snapshot=self._snapshot_key(session, snapshot_id) if snapshot_id else None, recipe=recipe,
                    figures={}, message="", created_at=now(), updated_at=now(),
                )  # fmt: skip
                session.add(row)
                session.flush()
            return self._value(session, row)

    def end(
        self,
        version_id: str,
        *,
        promoted: bool,
        message: str,
        figures: Mapping[str, Any],
        file: bytes | None = None,
        model: str | None = None,
    ) -> ModelVersion:
        """Promote a candidate, which retires the current version, or refuse it.

        Args:
            version_id: the candidate.
            promoted: whether it becomes the current version.
            message: why.
            figures: measurements; JSON values.
            file: its file, if there is one.
            model: the name of the model in the file.

        Raises:
            ConflictError: it is no candidate.
            OutputError: the file cannot be written. Nothing has changed.
        """
        check_text(message, "The message of a model version", 0, 10_000)
        check_json(figures, "The figures of a model version", MAX_JSON)
        sha256 = None if file is None else self._blobs.put(file, MEDIA_TYPE)
        with self._database.write() as session:
            row = self._found(session, version_id)
            if row.state != "candidate":
                raise ConflictError(f"Model version {row.number} is no candidate: it is {row.state}.")
            row.blob, row.message, row.figures = sha256, message, dict(figures)
            row.model = model or row.model
            self._switch(session, row, "current" if promoted else "refused")
            return self._value(session, row)

    def make_current(self, version: str | int) -> ModelVersion:
        """Let any version that has a file, or a registered name, annotate: a roll-back, or a promotion by hand.

        Raises:
            NotFoundError: the project has no such version, or its file is gone.
            ConflictError: it is a candidate that was not measured yet.
        """
        with self._database.write() as session:
            row = self._found(session, version)
            if row.state == "candidate":
                raise ConflictError(f"Model version {row.number} is still being trained or measured.")
            if row.recipe and row.blob is None:
                raise NotFoundError(f"Model version {row.number} has no file: {row.message or 'its training failed'}")
            self._switch(session, row, "current")
            return self._value(session, row)

    def file(self, version: ModelVersion) -> Path | None:
        """The file of a version, a safetensors file without that suffix; None for a registered model.

        Raises:
            NotFoundError: it is gone.
        """
        return None if version.sha256 is None else self._blobs.path(version.sha256)

    def _switch(self, session: Session, row: ModelVersionRow, state: ModelState) -> None:
        if state == "current":
            for other in session.scalars(self._all().where(ModelVersionRow.state == "current")):
                other.state, other.updated_at = "retired", now()
        row.state, row.updated_at = state, now()

    def _value(self, session: Session, row: ModelVersionRow) -> ModelVersion:
        parent = session.get(ModelVersionRow, row.parent) if row.parent else None
        snapshot = session.get(SnapshotRow, row.snapshot) if row.snapshot else None
        return ModelVersion(
            row.id, row.number, cast(ModelState, row.state), row.model, row.blob, parent.id if parent else None,
            snapshot.id if snapshot else None, row.recipe, row.figures, row.message, row.created_at, row.updated_at,
        )  # fmt: skip

    def _all(self) -> sa.Select[ModelVersionRow]:
        return sa.select(ModelVersionRow).where(ModelVersionRow.project == self._database.project)

    def _row(self, session: Session, version: str | int) -> ModelVersionRow | None:
        if isinstance(version, int):
            return session.scalar(self._all().where(ModelVersionRow.number == version)) if version < 2**31 else None
        return session.scalar(self._all().where(ModelVersionRow.id == version)) if is_id(version) else None

    def _found(self, session: Session, version: str | int) -> ModelVersionRow:
        row = self._row(session, version)
        if row is None:
            raise NotFoundError(f"The project has no model version {str(version)[:60]}.")
        return row

    def _snapshot_key(self, session: Session, snapshot_id: str) -> int:
        query = sa.select(SnapshotRow.key).where(
            SnapshotRow.project == self._database.project, SnapshotRow.id == snapshot_id
        )
        key = session.scalar(query)
        if key is None:
            raise NotFoundError(f"The project has no snapshot {snapshot_id[:60]!r}.")
        return key
