"""Entering."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from segany.core.version import __version__
from segany.server import schemas
from segany.server.dependencies import SessionsOf, State

router = APIRouter(tags=["session"])


@router.post("/session")
def enter(token: schemas.Token, response: Response, state: State, sessions: SessionsOf) -> schemas.Session:
    """Exchange the one-time token for a session, whose cookie the answer sets."""
    session = sessions.exchange(token.token)
    if session is None:
        raise HTTPException(
            401, "This token is not valid, or was used already. Take the newest address that segany serve printed."
        )
    response.headers["Set-Cookie"] = sessions.cookie(session)
    return schemas.Session(csrf=sessions.csrf(session), author=state.author, version=__version__)


@router.get("/session")
def get_session(request: Request, state: State, sessions: SessionsOf) -> schemas.Session:
    """The session of the cookie."""
    csrf = sessions.csrf(request.scope["state"]["session"])
    return schemas.Session(csrf=csrf, author=state.author, version=__version__)
