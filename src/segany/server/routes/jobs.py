"""Work that goes on after its request."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from segany.core.errors import NotFoundError
from segany.jobs.queue import JobQueue
from segany.server import schemas
from segany.server.answers import job_answer, job_event, proposals_answer
from segany.server.dependencies import Id, Queue, State
from segany.server.state import ServerState
from segany.store import Job

router = APIRouter(tags=["jobs"])


@router.get("/jobs")
def list_jobs(state: State) -> list[schemas.Job]:
    """The newest jobs, newest first."""
    return [job_answer(job) for job in state.store.jobs.list()]


@router.get("/jobs/{id}")
def get_job(id: Id, state: State) -> schemas.Job:  # noqa: A002
    """A job."""
    return job_answer(state.store.jobs.get(id))


@router.post("/jobs/{id}/cancel")
def cancel_job(id: Id, queue: Queue) -> schemas.Job:  # noqa: A002
    """Ask for a job's end."""
    return job_answer(queue.cancel(id))


@router.get("/items/{id}/proposals")
def get_proposals(id: Id, state: State) -> list[schemas.Proposal] | None:  # noqa: A002
    """The automatic masks of an item; null as long as they were not computed."""
    state.store.items.get(id)
    try:
        return proposals_answer(state.store.proposals.get(id))
    except NotFoundError:
        return None


@router.post("/items/{id}/proposals")
def start_proposals(id: Id, state: State, queue: Queue) -> schemas.Job:  # noqa: A002
    """Compute the automatic masks of an item, unless that is under way."""
    state.store.items.get(id)
    for job in state.store.jobs.list(limit=1000):
        if job.state in ("queued", "running") and job.kind == "proposals" and job.arguments.get("item") == id:
            return job_answer(job)
    return job_answer(submit(state, queue, "proposals", {"item": id}))


def submit(
    state: ServerState, queue: JobQueue, kind: str, arguments: Mapping[str, object], key: str | None = None
) -> Job:
    """Queue a job, once for each idempotency key, and tell of it."""
    job = state.store.jobs.submit(kind, arguments, key)
    state.events.publish(job_event(job))
    queue.wake()
    return job
