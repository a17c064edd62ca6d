"""Import and export of annotations."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, File, UploadFile
from fastapi import Path as PathParameter
from starlette.responses import FileResponse

from segany.jobs.exchange import Uploads, exported_file
from segany.server import schemas
from segany.server.answers import job_answer
from segany.server.dependencies import Id, Queue, State
from segany.server.intake import MAX_FILES, upload_name
from segany.server.routes.jobs import submit

router = APIRouter(tags=["exchange"])


@router.put("/uploads/{id}/{part}", status_code=204)
def put_upload(
    id: Id,  # noqa: A002
    part: Annotated[int, PathParameter(ge=0, le=schemas.MAX_NUMBER)],
    files: Annotated[list[UploadFile], File(max_length=MAX_FILES)],
    state: State,
) -> None:
    """Keep some of the files of an import, whose upload has an id that the client chose. The same part again replaces
    it; an upload without an import is removed after a day.
    """
    Uploads(state.store).put(id, part, [(upload_name(file.filename), file.file) for file in files])


@router.post("/imports")
def start_import(request: schemas.ImportRequest, state: State, queue: Queue) -> schemas.Job:
    """Import annotations, and images where the files have them. The same upload again is the same job."""
    arguments = {**request.model_dump(), "author": state.author}
    return job_answer(submit(state, queue, "import", arguments, f"import {request.upload}"))


@router.post("/exports")
def start_export(request: schemas.ExportRequest, state: State, queue: Queue) -> schemas.Job:
    """Export the project's annotations."""
    return job_answer(submit(state, queue, "export", request.model_dump()))


@router.get(
    "/exports/{id}/file",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def get_export(id: Id, state: State) -> FileResponse:  # noqa: A002
    """The file of an export that is done."""
    path = exported_file(state.store, id)
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(path.name)}"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
