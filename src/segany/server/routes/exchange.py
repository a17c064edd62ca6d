"""Import and export of annotations."""

from __future__ import annotations

import shutil
import uuid
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Form, UploadFile
from starlette.responses import FileResponse

from segany.core.files import replacing
from segany.jobs.exchange import exported_file, upload_folder
from segany.server import schemas
from segany.server.answers import job_answer
from segany.server.dependencies import Id, Queue, State
from segany.server.intake import upload_name
from segany.server.routes.jobs import submit
from segany.store import Store

router = APIRouter(tags=["exchange"])


@router.post("/imports")
def start_import(
    format: Annotated[schemas.ExchangeFormat, Form()],  # noqa: A002
    file: list[UploadFile],
    state: State,
    queue: Queue,
) -> schemas.Job:
    """Import annotations, and images where the files have them."""
    arguments = {
        "format": format,
        "upload": _receive(state.store, [one.file for one in file]),
        "files": [upload_name(one.filename) for one in file],
        "author": state.author,
    }
    return job_answer(submit(state, queue, "import", arguments))


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


def _receive(store: Store, files: list[BinaryIO]) -> str:
    """Write uploaded files, named by their numbers, and return the id of their folder."""
    upload = str(uuid.uuid4())
    folder = upload_folder(store, upload)
    try:
        for number, file in enumerate(files):
            with replacing(folder / str(number)) as temporary, temporary.open("xb") as written:
                shutil.copyfileobj(file, written, 1 << 20)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return upload
