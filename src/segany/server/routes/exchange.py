"""Import and export of annotations."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, UploadFile
from starlette.responses import FileResponse

from segany.server import schemas
from segany.server.answers import job_answer
from segany.server.dependencies import Id, Queue, State
from segany.server.routes.jobs import submit
from segany.server.transfers import Transfers

router = APIRouter(tags=["exchange"])


@router.post("/imports")
def start_import(
    format: Annotated[schemas.ExchangeFormat, Form()],  # noqa: A002
    file: list[UploadFile],
    state: State,
    queue: Queue,
) -> schemas.Job:
    """Import annotations, and images where the format has them."""
    upload = Transfers(state.store).receive((one.filename or "", one.file) for one in file)
    return job_answer(submit(state, queue, "import", {"format": format, "upload": upload}))


@router.post("/exports")
def start_export(request: schemas.ExportRequest, state: State, queue: Queue) -> schemas.Job:
    """Export the project's annotations."""
    arguments = {"format": request.format, "filter": request.filter.model_dump(exclude_none=True)}
    return job_answer(submit(state, queue, "export", arguments))


@router.get(
    "/exports/{id}/file",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def get_export(id: Id, state: State) -> FileResponse:  # noqa: A002
    """The file of an export that is done."""
    path = Transfers(state.store).exported(state.store.jobs.get(id))
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(path.name)}"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
