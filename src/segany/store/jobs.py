"""Jobs as rows: queued, claimed under a lease, reported on, ended. `segany.jobs.queue` runs them.

A worker claims a job and gets a lease, which it extends while it works. A worker that was killed stops doing so; then
the job is claimed again, and whoever held the old lease can no longer report: a job ends exactly once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from segany.core.errors import ConflictError, DataError, NotFoundError
from segany.store.checks import check_choice, check_json, check_number, check_text, is_id
from segany.store.database import Database
from segany.store.rows import job_value, now
from segany.store.tables import JobRow
from segany.store.values import MAX_JSON, Job, JobState, Lease

MAX_ATTEMPTS = 3
"""How often a job is started: one that ends its process each time should not do so for ever."""

ENDED = ("done", "failed", "canceled")


class Jobs:
    """The jobs of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, kind: str, arguments: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Queue a job.

        Args:
            kind: says which function does it.
            arguments: for that function; JSON values.
            idempotency_key: a second job of the same key is not made: the first one is returned, whatever its state.

        Raises:
            DataError: the arguments are not JSON, or the key was used for another kind.
        """
        check_text(kind, "The kind of a job", 1, 100)
        check_json(arguments, "The arguments of a job", MAX_JSON)
        if idempotency_key is not None:
            check_text(idempotency_key, "The idempotency key of a job", 1, 200)
        with self._database.write() as session:
            if idempotency_key is not None:
                query = self._all().where(JobRow.idempotency_key == idempotency_key)
                known = session.scalar(query)
                if known is not None and known.kind != kind:
                    raise DataError(f"The idempotency key {idempotency_key!r} was used for a job {known.kind!r}.")
                if known is not None:
                    return job_value(known)
            time = now()
            row = JobRow(
                project=self._database.project, id=str(uuid.uuid4()), kind=kind, arguments=dict(arguments),
                idempotency_key=idempotency_key, state="queued", lease=None, leased_until=None, attempts=0,
                cancel_requested=False, done=0, total=0, unit="", message="", result=None, created_at=time,
                updated_at=time,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return job_value(row)

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            NotFoundError: the project has no such job.
        """
        with self._database.read() as session:
            return job_value(self._find(session, job_id))

    def list(self, state: JobState | None = None, limit: int = 100) -> tuple[Job, ...]:
        """The newest jobs, newest first."""
        check_number(limit, "The limit", 0, 10_000)
        query = self._all().order_by(JobRow.key.desc()).limit(limit)
        if state is not None:
            check_choice(state, get_args(JobState), "The state of jobs")
            query = query.where(JobRow.state == state)
        with self._database.read() as session:
            return tuple(job_value(row) for row in session.scalars(query))

    def cancel(self, job_id: str) -> Job:
        """Ask for a job's end. A queued one ends at once, a running one soon; one that has ended stays as it is.

        Raises:
            NotFoundError: the project has no such job.
        """
        with self._database.write() as session:
            row = self._find(session, job_id)
            if row.state not in ENDED:
                row.cancel_requested, row.updated_at = True, now()
            if row.state == "queued":
                row.state = "canceled"
            return job_value(row)

    # For workers.

    def claim(self, kinds: Sequence[str], lease_seconds: float) -> Lease | None:
        """Take the oldest job that waits or whose worker is gone; None where there is none.

        Args:
            kinds: which jobs the worker can do.
            lease_seconds: how long the lease lasts unless it is extended.
        """
        time = now()
        is_free = (JobRow.state == "queued") | ((JobRow.state == "running") & (JobRow.leased_until < time))
        free = self._all().where(JobRow.kind.in_(kinds), is_free).order_by(JobRow.key).limit(1)
        with self._database.read() as session:  # most of the time there is none, and writers need not wait
            if session.scalar(free) is None:
                return None
        with self._database.write() as session:
            while (row := session.scalar(free)) is not None:
                row.updated_at, row.lease = time, None
                if row.cancel_requested:
                    row.state = "canceled"
                elif row.attempts >= MAX_ATTEMPTS:
                    row.state = "failed"
                    row.message = f"It was interrupted {row.attempts} times, and is not tried again."
                else:
                    row.state, row.lease, row.attempts = "running", str(uuid.uuid4()), row.attempts + 1
                    row.leased_until = time + timedelta(seconds=lease_seconds)
                    session.flush()
                    return Lease(job_value(row), row.lease)
                session.flush()
        return None

    def extend(self, lease: Lease, lease_seconds: float) -> Job:
        """Hold a job for longer. The job tells whether its end was asked for.

        Raises:
            ConflictError: the lease ran out, and another worker has the job.
        """
        with self._database.write() as session:
            row = self._held(session, lease)
            row.leased_until = now() + timedelta(seconds=lease_seconds)
            return job_value(row)

    def report(self, lease: Lease, done: int, total: int, unit: str = "", message: str = "") -> Job:
        """Note the progress of a job.

        Raises:
            ConflictError: as for `extend`.
        """
        with self._database.write() as session:
            row = self._held(session, lease)
            row.done, row.total, row.unit, row.message, row.updated_at = done, total, unit, message, now()
            return job_value(row)

    def finish(self, lease: Lease, result: Any = None) -> Job:
        """End a job that is done.

        Args:
            lease: of the worker.
            result: JSON value.

        Raises:
            ConflictError: as for `extend`.
            DataError: the result is not JSON.
        """
        check_json({"result": result}, "The result of a job", MAX_JSON)
        return self._end(lease, "done", None, json.loads(json.dumps(result)))

    def fail(self, lease: Lease, message: str) -> Job:
        """End a job that went wrong, and say why.

        Raises:
            ConflictError: as for `extend`.
        """
        return self._end(lease, "failed", message.replace("\0", "")[:10_000], None)

    def canceled(self, lease: Lease) -> Job:
        """End a job because that was asked for.

        Raises:
            ConflictError: as for `extend`.
        """
        return self._end(lease, "canceled", None, None)

    def release(self, lease: Lease) -> Job:
        """Give a job back that was not finished, for another worker: the server stops.

        Raises:
            ConflictError: as for `extend`.
        """
        with self._database.write() as session:
            row = self._held(session, lease)
            row.state, row.lease, row.attempts, row.updated_at = "queued", None, row.attempts - 1, now()
            return job_value(row)

    def requeue_abandoned(self) -> int:
        """Queue the jobs of an earlier server that was killed, without waiting for their leases to run out.

        Only for who holds the project: see `Store.open`. Returns how many there are.
        """
        with self._database.write() as session:
            rows = session.scalars(self._all().where(JobRow.state == "running")).all()
            for row in rows:
                row.lease, row.leased_until = None, row.created_at
            return len(rows)

    def _end(self, lease: Lease, state: JobState, message: str | None, result: Any) -> Job:
        with self._database.write() as session:
            row = self._held(session, lease)
            row.state, row.lease, row.result, row.updated_at = state, None, result, now()
            row.message = row.message if message is None else message
            return job_value(row)

    def _held(self, session: Session, lease: Lease) -> JobRow:
        row = self._find(session, lease.job.id)
        if row.lease != lease.token:
            raise ConflictError(f"The lease of job {row.id} ({row.kind}) ran out: it is {row.state} elsewhere.")
        return row

    def _find(self, session: Session, job_id: str) -> JobRow:
        row = session.scalar(self._all().where(JobRow.id == job_id)) if is_id(job_id) else None
        if row is None:
            raise NotFoundError(f"The project has no job {str(job_id)[:60]!r}.")
        return row

    def _all(self) -> sa.Select[JobRow]:
        return sa.select(JobRow).where(JobRow.project == self._database.project)
