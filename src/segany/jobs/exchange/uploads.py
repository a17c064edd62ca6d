"""Uploaded files of an import: they arrive in parts, and are kept in the project's cache until the import has ended.

The files of a part are named by their numbers; the names they had are data in a file beside them.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from segany.core.errors import DataError
from segany.core.files import replacing_folder
from segany.jobs.exchange.bundle import SourceFile
from segany.store import Store
from segany.store.jobs import ENDED

ABANDONED_SECONDS = 24 * 3600
"""Age at which an upload that no import uses is removed."""

MAX_PARTS = 100_000

_NAMES = "names.json"

_CHUNK = 1 << 20


class Uploads:
    """The uploads of a project."""

    def __init__(self, store: Store) -> None:
        """Use the project's cache, where nothing may be yet."""
        self._store, self._folder = store, store.folder / "cache" / "imports"

    def put(self, upload_id: str, part: int, files: Iterable[tuple[str, BinaryIO]]) -> None:
        """Keep a part of an upload, with each file's name. The same part again replaces it.

        Raises:
            DataError: `upload_id` is no id, or the number of the part is out of range.
            OutputError: it cannot be written; nothing of this part is left.
        """
        if not 0 <= part < MAX_PARTS:
            raise DataError(f"{part} is no number of a part of an upload: 0 to {MAX_PARTS - 1:,}.")
        with replacing_folder(self._of(upload_id) / str(part)) as folder:
            names = []
            for number, (name, file) in enumerate(files):
                with (folder / str(number)).open("xb") as written:
                    shutil.copyfileobj(file, written, _CHUNK)
                names.append(name)
            (folder / _NAMES).write_text(json.dumps(names))

    def files(self, upload_id: str) -> list[SourceFile]:
        """The files of an upload, in the order of its parts.

        Raises:
            DataError: it is no id of an upload, or the upload was removed.
        """
        folder = self._of(upload_id)
        parts = sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))
        if not parts:
            raise DataError("There are no files of this upload. Upload them again.")
        return [
            SourceFile(str(name), part / str(number))
            for part in parts
            for number, name in enumerate(json.loads((part / _NAMES).read_text()))
        ]

    def remove_ended(self) -> None:
        """Remove the uploads of imports that have ended, and those that have waited for an import for a day."""
        used = {
            str(job.arguments.get("upload")): job.state in ENDED
            for job in self._store.jobs.list(limit=1000)
            if job.kind == "import"
        }
        for folder in self._folder.glob("*"):
            if used.get(folder.name, time.time() - folder.stat().st_mtime > ABANDONED_SECONDS):
                shutil.rmtree(folder, ignore_errors=True)

    def _of(self, upload_id: Any) -> Path:
        try:
            return self._folder / str(uuid.UUID(upload_id))
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{str(upload_id)[:60]!r} is no id of an upload.") from error
