"""What routes take from the application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from fastapi import Path as PathParameter
from starlette.requests import HTTPConnection

from segany.jobs.queue import JobQueue
from segany.server import schemas
from segany.server.sessions import Sessions
from segany.server.state import ServerState
from segany.store import ItemFilter


def _state(connection: HTTPConnection) -> ServerState:
    state: ServerState = connection.app.state.segany
    return state


def _sessions(connection: HTTPConnection) -> Sessions:
    sessions: Sessions = connection.app.state.sessions
    return sessions


def _queue(connection: HTTPConnection) -> JobQueue:
    queue: JobQueue = connection.app.state.queue
    return queue


State = Annotated[ServerState, Depends(_state)]
SessionsOf = Annotated[Sessions, Depends(_sessions)]
Queue = Annotated[JobQueue, Depends(_queue)]

Id = Annotated[str, PathParameter(max_length=100)]


def _filter(
    state: schemas.ItemState | None = None,
    label: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    q: Annotated[str, Query(max_length=500)] = "",
    sort: schemas.ItemSort = "name",
) -> ItemFilter:
    return ItemFilter(state, () if label is None else (label,), q, sort)


Filter = Annotated[ItemFilter, Depends(_filter)]
