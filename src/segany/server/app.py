"""The ASGI application: routes, jobs, the page, and what guards them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from segany.core.version import __version__
from segany.jobs.queue import JobQueue
from segany.server.answers import job_event
from segany.server.errors import add_error_handlers
from segany.server.pages import STATIC, Pages
from segany.server.routes import api_router
from segany.server.security import Limits, Security
from segany.server.sessions import Sessions
from segany.server.state import ServerState
from segany.server.work import KINDS, JobMaker


def make_api() -> FastAPI:
    """The routes alone, such as for the schema."""
    app = FastAPI(
        title="segany", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
        generate_unique_id_function=_name, redirect_slashes=False,
    )  # fmt: skip
    app.include_router(api_router())
    add_error_handlers(app)
    return app


def make_app(
    state: ServerState,
    sessions: Sessions,
    hosts: frozenset[str],
    *,
    static: Path = STATIC,
    limits: Limits | None = None,
    kinds: Mapping[str, JobMaker] = KINDS,
) -> Security:
    """The application over an open project.

    Args:
        state: the project, its model and its events.
        sessions: who may use it.
        hosts: what `Host` may be, with the port.
        static: folder of the built page.
        limits: of bodies.
        kinds: the kinds of jobs it does.
    """
    app = make_api()
    functions = {kind: make(state) for kind, make in kinds.items()}
    queue = JobQueue(state.store, functions, on_change=lambda job: state.events.publish(job_event(job)))
    app.state.segany, app.state.sessions, app.state.queue = state, sessions, queue
    app.mount("/", Pages(static))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        queue.__enter__()
        state.model_host.start()
        try:
            yield
        finally:
            await run_in_threadpool(queue.__exit__, None, None, None)
            await run_in_threadpool(state.model_host.close)

    app.router.lifespan_context = lifespan
    return Security(app, sessions, hosts, limits)


def _name(route: APIRoute) -> str:
    return route.name
