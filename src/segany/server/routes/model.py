"""The files of the decoder that the page runs itself."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from segany.server import schemas
from segany.server.dependencies import State

router = APIRouter(prefix="/model", tags=["model"])


@router.get(
    "/decoder/{name}",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}, "application/json": {}}},
        404: {"model": schemas.Message, "description": "There is no such file, or no export of the decoder yet"},
    },
)
def get_decoder_file(name: str, state: State) -> Response:
    """A file of the exported decoder: `manifest.json`, and those that it lists."""
    path = state.model_host.decoder_file(name)
    if path is None:
        raise HTTPException(404, "The decoder has no such file, or was not exported yet.")
    media_type = "application/json" if path.suffix == ".json" else "application/octet-stream"
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})
