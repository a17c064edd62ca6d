"""The bytes of images, thumbnails and embeddings. What belongs to an item never changes, so browsers may keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from segany.core.errors import ImageError
from segany.server import schemas
from segany.server.dependencies import Id, State
from segany.server.errors import message_answer
from segany.server.pictures import Picture, Pictures
from segany.store import Item

router = APIRouter(prefix="/items/{id}", tags=["images"])

KEEP = "private, max-age=31536000, immutable"

_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {name: {} for name in ("image/png", "image/jpeg", "image/webp", "image/bmp")}},
    304: {"description": "The browser has it"},
}


@router.get("/image", response_class=Response, responses=_IMAGE)
def get_image(id: Id, request: Request, state: State, v: str = "") -> Response:  # noqa: A002, ARG001
    """The image, with exactly the pixels that the model sees. `v` is the item's `image`, for caches."""
    item = state.store.items.get(id)
    return _answer(request, item, "image", lambda: Pictures(state.store).image(item))


@router.get("/thumbnail", response_class=Response, responses=_IMAGE)
def get_thumbnail(id: Id, request: Request, state: State) -> Response:  # noqa: A002
    """A small copy of the image."""
    item = state.store.items.get(id)
    return _answer(request, item, "thumbnail", lambda: Pictures(state.store).thumbnail(item))


@router.get(
    "/embedding",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        202: {"model": schemas.Message, "description": "It is being computed"},
        404: {"model": schemas.Message, "description": "There is no such image, or nobody has opened it"},
        409: {"model": schemas.Message, "description": "There is no model, or it cannot be loaded"},
        422: {"model": schemas.Message, "description": "The model cannot encode this image"},
    },
)
def get_embedding(id: Id, state: State) -> Response:  # noqa: A002
    """The embedding that the decoder in the page takes, in safetensors.

    Reading changes nothing: it is computed for those who open the image, by a message over the WebSocket.
    """
    sha256, embeddings = state.store.items.get(id).sha256, state.model_host.embeddings
    is_coming = embeddings.is_coming(sha256)  # before looking, or it could be done in between
    data = state.model_host.embedding_bytes(sha256)
    if data is not None:
        return Response(data, media_type="application/octet-stream")
    if embeddings.failure is not None:
        raise HTTPException(409, embeddings.failure)
    if (failure := embeddings.failure_of(sha256)) is not None:
        raise HTTPException(422, failure)
    if is_coming:
        return message_answer(202, "The embedding is being computed.")
    raise HTTPException(404, "The embedding of this image was not asked for. Open the image first.")


def _answer(request: Request, item: Item, what: str, make: Callable[[], Picture]) -> Response:
    headers = {"Cache-Control": KEEP, "ETag": f'"{what}-{item.sha256}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    try:
        picture = make()
    except ImageError as error:
        raise HTTPException(404, str(error)) from error
    return Response(picture.data, headers=headers, media_type=picture.media_type)
