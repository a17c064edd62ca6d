"""A client of `segany serve`.

with Client("http://127.0.0.1:8765/#token=…") as client:
for item in client.items(state="done"):
print(item.name, len(client.item(item.id).objects))
client.export("coco", "annotations/")
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter

from segany.core.errors import ConflictError, DataError, NotFoundError, OutputError, SeganyError, StoreError
from segany.core.files import path_errors, replacing
from segany.core.progress import ProgressCallback, report
from segany.server import schemas

PAGE = 500

POLL_SECONDS = 0.3

TIMEOUT_SECONDS = 120.0

PART_FILES = 200
"""Files of a request at most; the server takes 1,000."""

PART_BYTES = 256 << 20
"""Bytes of the files of a request at most, unless a single one is larger."""

_ERRORS: dict[int, type[SeganyError]] = {404: NotFoundError, 409: ConflictError, 422: DataError, 507: OutputError}

ModelT = TypeVar("ModelT", bound=BaseModel)


class Client:
    """A session with a server. Close it, or use it in a `with` statement. Threads need a client each.

    Attributes:
        session: who this is.
        http: sends requests of the session, such as those without a method here.

    Every method raises `StoreError` where the server cannot be reached or refuses the session, and otherwise the error
    that the same call of the library raises: `NotFoundError`, `DataError`, `OutputError`.
    """

    def __init__(self, address: str, *, transport: httpx.BaseTransport | None = None) -> None:
        """Enter.

        Args:
            address: what `segany serve` printed, with the token, which is used up.
            transport: for tests; over the network where None.
        """
        root, _, token = address.partition("#token=")
        self.http = httpx.Client(
            base_url=root.rstrip("/"), timeout=TIMEOUT_SECONDS, transport=transport, trust_env=False
        )
        try:
            self.session = self._ask(schemas.Session, "POST", "/api/session", json={"token": token})
        except BaseException:
            self.http.close()
            raise
        self.http.headers["X-Segany-CSRF"] = self.session.csrf

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The project.

    def project(self) -> schemas.Project:
        """The project, its labels and its model."""
        return self._ask(schemas.Project, "GET", "/api/project")

    def replace_labels(self, base_version: int, labels: Sequence[schemas.Label]) -> schemas.Project:
        """Make a new version of the labels; `ConflictError` where `base_version` is not the newest."""
        change = schemas.LabelsChange(base_version=base_version, labels=list(labels))
        return self._ask(schemas.Project, "PUT", "/api/project/labels", json=change.model_dump(mode="json"))

    # Items.

    def items(
        self, *, state: schemas.ItemState | None = None, label: int | None = None, text: str = ""
    ) -> Iterator[schemas.ItemSummary]:
        """The items that a filter lets through, in the order in which they were added."""
        query: dict[str, Any] = {"sort": "position", "limit": PAGE, "q": text}
        query.update({"state": state} if state else {}, **({} if label is None else {"label": label}))
        offset = 0
        while True:
            page = self._ask(schemas.ItemPage, "GET", "/api/items", params={**query, "offset": offset})
            yield from page.items
            offset += PAGE
            if offset >= page.total:
                return

    def item(self, item_id: str) -> schemas.ItemWithObjects:
        """An item with its objects."""
        return self._ask(schemas.ItemWithObjects, "GET", f"/api/items/{item_id}")

    def set_state(self, item_id: str, state: schemas.ItemState) -> schemas.Item:
        """Change an item's state."""
        return self._ask(schemas.Item, "PATCH", f"/api/items/{item_id}", json={"state": state})

    def image(self, item_id: str) -> bytes:
        """An item's image as a file, with the pixels that the model sees."""
        return self._call("GET", f"/api/items/{item_id}/image").content

    def save(self, item_id: str, changes: Sequence[schemas.Change], batch: str | None = None) -> schemas.SaveAnswer:
        """Save changes of an item's objects. With the `batch` of an earlier call again, it does nothing."""
        whole = schemas.Batch(batch=batch or str(uuid.uuid4()), changes=list(changes))
        path = f"/api/items/{item_id}/revisions"
        response = self._call("POST", path, json=whole.model_dump(mode="json"), fine=(409,))
        return schemas.SaveAnswer.model_validate_json(response.content)

    def upload(self, images: Iterable[str | Path], progress: ProgressCallback | None = None) -> schemas.Uploaded:
        """Add image files, whose bytes are copied into the project.

        Args:
            images: any number of files. They are sent in parts; if one fails, the images of those before stay.
            progress: is called after each part.

        Returns:
            The items, and the files that were skipped, of all parts.
        """
        uploaded = schemas.Uploaded(items=[], skipped=[])
        for files in _in_parts(images, progress):
            answer = self._ask(schemas.Uploaded, "POST", "/api/items", files=files)
            uploaded.items += answer.items
            uploaded.skipped += answer.skipped
        return uploaded

    # Jobs.

    def jobs(self) -> list[schemas.Job]:
        """The newest jobs, newest first."""
        return TypeAdapter(list[schemas.Job]).validate_json(self._call("GET", "/api/jobs").content)

    def wait(self, job: schemas.Job, progress: Callable[[schemas.Job], None] | None = None) -> schemas.Job:
        """Wait until a job is done.

        Args:
            job: the job.
            progress: is called with it as it goes on.

        Raises:
            DataError: it failed or was canceled.
        """
        while job.state in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            job = self._ask(schemas.Job, "GET", f"/api/jobs/{job.id}")
            if progress is not None:
                progress(job)
        if job.state != "done":
            raise DataError(f"The {job.kind} was {job.state}. {job.message}".strip())
        return job

    def cancel(self, job: schemas.Job) -> schemas.Job:
        """Ask for a job's end."""
        return self._ask(schemas.Job, "POST", f"/api/jobs/{job.id}/cancel")

    def start_proposals(self, item_id: str) -> schemas.Job:
        """Start computing the automatic masks of an item."""
        return self._ask(schemas.Job, "POST", f"/api/items/{item_id}/proposals")

    def start_import(
        self,
        format: schemas.ExchangeFormat,  # noqa: A002
        files: Iterable[str | Path],
        progress: ProgressCallback | None = None,
    ) -> schemas.Job:
        """Upload any number of files, in parts, and start importing annotations from them.

        Args:
            format: of the annotations.
            files: annotations, images, and zip archives of both.
            progress: is called after each part of the upload.
        """
        request = schemas.ImportRequest(format=format, upload=str(uuid.uuid4()))
        for number, part in enumerate(_in_parts(files, progress)):
            self._call("PUT", f"/api/uploads/{request.upload}/{number}", files=part)
        return self._ask(schemas.Job, "POST", "/api/imports", json=request.model_dump(mode="json"))

    def start_export(
        self,
        format: schemas.ExchangeFormat,  # noqa: A002
        *,
        state: schemas.ItemState | None = None,
        images: bool = False,
    ) -> schemas.Job:
        """Start exporting the annotations, of items of a state or of all, and with `images` those too."""
        request = schemas.ExportRequest(format=format, filter=schemas.ExportFilter(state=state), images=images)
        return self._ask(schemas.Job, "POST", "/api/exports", json=request.model_dump(mode="json"))

    def export(
        self,
        format: schemas.ExchangeFormat,  # noqa: A002
        folder: str | Path,
        *,
        state: schemas.ItemState | None = None,
        images: bool = False,
    ) -> Path:
        """Export into a folder, as `start_export` does, and return the path of the file."""
        job = self.wait(self.start_export(format, state=state, images=images))
        path = Path(folder) / Path(str((job.result or {}).get("file", "export"))).name
        with self._errors(), self.http.stream("GET", f"/api/exports/{job.id}/file") as response:
            if not response.is_success:
                response.read()
                _check(response)
            with replacing(path) as temporary, temporary.open("xb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        return path

    def _ask(self, kind: type[ModelT], method: str, path: str, **arguments: Any) -> ModelT:
        return kind.model_validate_json(self._call(method, path, **arguments).content)

    def _call(self, method: str, path: str, *, fine: tuple[int, ...] = (), **arguments: Any) -> httpx.Response:
        with self._errors():
            response = self.http.request(method, path, **arguments)
        if response.status_code not in fine:
            _check(response)
        return response

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StoreError(f"The server at {self.http.base_url} was not reached: {error}. Is it running?") from error


def _check(response: httpx.Response) -> None:
    """Raise the error that an answer stands for."""
    if response.is_success:
        return
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {response.status_code} {response.reason_phrase}."
    raise _ERRORS.get(response.status_code, StoreError)(message)


def _in_parts(files: Iterable[str | Path], progress: ProgressCallback | None) -> Iterator[list[tuple[str, Any]]]:
    """The forms that send files, one after the other; the files of one are open until the next one is asked for."""
    paths = [Path(path) for path in files]
    sizes = []
    for path in paths:
        with path_errors(path, DataError):
            sizes.append(path.stat().st_size)
    start = 0
    while start < len(paths):
        end = start + 1
        while end < len(paths) and end - start < PART_FILES and sum(sizes[start : end + 1]) <= PART_BYTES:
            end += 1
        with contextlib.ExitStack() as opened:
            form = []
            for path in paths[start:end]:
                with path_errors(path, DataError):
                    form.append(("files", (path.name, opened.enter_context(path.open("rb")))))
            yield form
        report(progress, "uploading", end, len(paths), "files")
        start = end
