"""Files that come in for an import and go out of an export, in the project's folder."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from segany.core.errors import NotFoundError
from segany.core.files import replacing
from segany.store import Job, Store

MAX_NAME_BYTES = 120

KEPT_EXPORTS = 10


class Transfers:
    """The files of imports and exports of a project."""

    def __init__(self, store: Store) -> None:
        self._imports, self._exports = store.folder / "imports", store.folder / "exports"

    def receive(self, files: Iterable[tuple[str, BinaryIO]]) -> str:
        """Write uploaded files, and return an id for `source`.

        Raises:
            OutputError: they cannot be written.
        """
        upload = uuid.uuid4().hex
        folder = self._imports / upload
        try:
            for number, (name, file) in enumerate(files):
                with replacing(folder / _safe(name, number, folder)) as temporary, temporary.open("xb") as written:
                    shutil.copyfileobj(file, written, 1 << 20)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return upload

    def source(self, upload: str) -> Path:
        """What to import: the file that was uploaded, or the folder of several."""
        folder = self._imports / _checked_id(upload)
        files = list(folder.iterdir()) if folder.is_dir() else []
        if not files:
            raise NotFoundError("The uploaded files are gone. Upload them again.")
        return files[0] if len(files) == 1 else folder

    def discard(self, upload: str) -> None:
        """Delete the uploaded files."""
        shutil.rmtree(self._imports / _checked_id(upload), ignore_errors=True)

    def export_folder(self, job_id: str) -> Path:
        """An empty folder for what a job exports. The oldest exports are deleted."""
        folder = self._exports / _checked_id(job_id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        others = sorted(self._exports.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in others[KEPT_EXPORTS:]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def exported(self, job: Job) -> Path:
        """The file that a job exported.

        Raises:
            NotFoundError: it is not done, or its file was deleted since.
        """
        folder = self._exports / _checked_id(job.id)
        name = job.result.get("file") if isinstance(job.result, dict) else None
        path = next((file for file in folder.glob("*") if file.name == name and file.is_file()), None)
        if job.kind != "export" or path is None:
            raise NotFoundError("This export is not done, or its file was deleted. Export again.")
        return path


def _checked_id(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f-]{32,36}", value):
        raise NotFoundError("There is no such upload or export.")
    return value


def _safe(name: str, number: int, folder: Path) -> str:
    """A name for an uploaded file: its own where that can be one, and no other file has it."""
    safe = re.sub(r"[^\w .()+-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(". ")
    safe = safe.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    is_free = safe and not any(file.name.casefold() == safe.casefold() for file in folder.glob("*"))
    return safe if is_free else f"{number:05}_{safe}"
