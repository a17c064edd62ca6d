"""The project and its labels."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from segany.core.errors import ConflictError
from segany.server import schemas
from segany.server.answers import label_value, project_answer
from segany.server.dependencies import State

router = APIRouter(prefix="/project", tags=["project"])


@router.get("")
def get_project(state: State) -> schemas.Project:
    """The project."""
    return project_answer(state)


@router.patch("")
def change_project(change: schemas.ProjectChange, state: State) -> schemas.Project:
    """Rename the project, or set some of its settings."""
    state.store.update_project(change.name, change.settings)
    return project_answer(state)


@router.put("/labels", response_model=schemas.Project, responses={409: {"model": schemas.StaleLabels}})
def replace_labels(change: schemas.LabelsChange, state: State) -> schemas.Project | JSONResponse:
    """Make a new version of the labels."""
    try:
        state.store.labels.replace(change.base_version, [label_value(label) for label in change.labels], state.author)
    except ConflictError as error:
        stale = schemas.StaleLabels(message=str(error), project=project_answer(state))
        return JSONResponse(stale.model_dump(mode="json"), 409)
    return project_answer(state)
