"""Saving."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from segany.server import schemas
from segany.server.answers import change_value, save_answer
from segany.server.dependencies import Id, State

router = APIRouter(prefix="/items/{id}/revisions", tags=["revisions"])


@router.post("", response_model=schemas.SaveAnswer, responses={409: {"model": schemas.SaveAnswer}})
def save(id: Id, batch: schemas.Batch, state: State) -> schemas.SaveAnswer | JSONResponse:  # noqa: A002
    """Save a batch of changes. 409: some were made from a state that is no longer the newest; those are kept too."""
    changes = [change_value(change) for change in batch.changes]
    answer = save_answer(state.store.annotations.save(id, batch.batch, changes, state.author))
    return JSONResponse(answer.model_dump(mode="json"), 409) if answer.conflicts else answer
