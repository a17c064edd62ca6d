"""Every error as an answer `{message}` of the right status, never a traceback."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from segany.core.errors import (
    ConflictError,
    MissingExtraError,
    NotFoundError,
    OutOfMemoryError,
    OutputError,
    SeganyError,
    StoreError,
    WeightsError,
)
from segany.server.schemas import Message

log = logging.getLogger(__name__)

_STATUSES: tuple[tuple[type[SeganyError], int], ...] = (  # the first that fits
    (NotFoundError, 404),
    (ConflictError, 409),
    (OutputError, 507),  # the page keeps its work, and tries again
    (StoreError, 503),
    (OutOfMemoryError, 503),
    (WeightsError, 503),
    (MissingExtraError, 501),
    (SeganyError, 422),
)

_MESSAGES = {
    404: "There is nothing at this address.",
    405: "This address does not take such requests.",
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Message, "description": description}
    for status, description in (
        (400, "The request cannot be read"),
        (401, "There is no session"),
        (403, "Another web page, or no CSRF header"),
        (404, "Not there"),
        (413, "Too large"),
        (422, "A value is refused"),
        (503, "The database cannot be used at the moment"),
        (507, "There is no space to write"),
    )
}
"""What every route may answer beside its own."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer errors of an application."""
    app.add_exception_handler(SeganyError, _segany_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(MemoryError, _no_memory)
    app.add_exception_handler(Exception, _bug)


def message_answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer with a message."""
    return JSONResponse({"message": message.encode("utf-8", "backslashreplace").decode()}, status, headers)


def _segany_error(request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return message_answer(status, str(error))


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Say which field is wrong, without repeating its value, which may be large."""
    first = cast(RequestValidationError, error).errors()[0]
    place = ".".join(str(part)[:60] for part in first["loc"][1:]) or str(first["loc"][0])
    status = 400 if first["type"] == "json_invalid" else 422
    return message_answer(status, f"{place}: {first['msg']}.")


def _http_error(_request: Request, error: Exception) -> JSONResponse:
    known = cast(HTTPException, error)
    if isinstance(known.__cause__, OSError):  # uploads are spooled to a temporary file
        log.warning("An upload could not be received: %s", known.__cause__)
        return message_answer(507, f"The upload could not be written: {known.__cause__.strerror}. Free some space.")
    is_bare = known.detail == HTTPStatus(known.status_code).phrase
    message = _MESSAGES.get(known.status_code, known.detail) if is_bare else known.detail
    return message_answer(known.status_code, message, dict(known.headers or {}))


def _no_memory(_request: Request, _error: Exception) -> JSONResponse:
    return message_answer(503, "There is not enough memory for this.")


def _bug(_request: Request, _error: Exception) -> JSONResponse:
    return message_answer(500, "The server failed. The terminal that it runs in says more.")
