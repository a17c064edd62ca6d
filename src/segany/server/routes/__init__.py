"""The routes of the API, a file for each part of it."""

from __future__ import annotations

from fastapi import APIRouter

from segany.server.errors import RESPONSES
from segany.server.routes import exchange, images, items, jobs, live, model, project, revisions, session


def api_router() -> APIRouter:
    """All routes, below /api."""
    router = APIRouter(prefix="/api", responses=RESPONSES)
    for part in (session, project, model, items, images, revisions, jobs, exchange, live):
        router.include_router(part.router)
    return router
