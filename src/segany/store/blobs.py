"""Files by the sha256 of their bytes, in the project's folder. Names from outside are never part of a path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from segany.core.errors import NotFoundError, StoreError
from segany.core.files import replacing, sha256_of, write_error
from segany.store.database import Database
from segany.store.rows import now
from segany.store.tables import BlobRow


class Blobs:
    """The files of a project. The same bytes are kept once."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder

    def put(self, data: bytes, media_type: str, width: int | None = None, height: int | None = None) -> str:
        """Keep some bytes, and return their sha256.

        Args:
            data: the bytes.
            media_type: such as "image/jpeg".
            width, height: of an image shown upright, in pixels.

        Raises:
            OutputError: they cannot be written.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        self.write_file(sha256, [data])
        with self._database.write() as session:
            self.add_row(session, sha256, len(data), media_type, width, height)
        return sha256

    def path(self, sha256: str) -> Path:
        """The file of a blob, not looked into.

        Raises:
            NotFoundError: the project has no such blob, or its file is gone.
        """
        path = self._path(sha256)
        if not path.is_file():
            raise NotFoundError(f"The project has no file {sha256[:64]!r}, or it was deleted. Restore {path}.")
        return path

    def read(self, sha256: str) -> bytes:
        """The bytes of a blob.

        Raises:
            NotFoundError: the project has no such blob, or its file is gone.
            StoreError: the file is damaged.
        """
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise damaged(path)
        return data

    def write_file(self, sha256: str, chunks: Iterator[bytes] | list[bytes]) -> None:
        """Write the file of a blob whose row comes later; without one it does no harm.

        Raises:
            OutputError: it cannot be written.
            StoreError: the chunks are not of that sha256.
        """
        path = self._path(sha256)
        try:
            if path.is_file() and sha256_of(path) == sha256:  # also mends a damaged one
                return
        except OSError as error:
            raise write_error(path, error) from error
        digest = hashlib.sha256()
        with replacing(path) as temporary:
            temporary.touch(0o600)
            with temporary.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise damaged(path)

    def add_row(
        self, session: Session, sha256: str, byte_count: int, media_type: str, width: int | None, height: int | None
    ) -> None:
        """Note a blob whose file is there, unless it is noted already."""
        if session.get(BlobRow, (self._database.project, sha256)) is None:
            session.add(
                BlobRow(
                    project=self._database.project, sha256=sha256, byte_count=byte_count, media_type=media_type,
                    width=width, height=height, created_at=now(),
                )
            )  # fmt: skip
            session.flush()

    def require_row(self, session: Session, sha256: str) -> None:
        """Raise `NotFoundError` unless a blob is noted."""
        if session.get(BlobRow, (self._database.project, sha256)) is None:
            raise NotFoundError(f"The project has no file {sha256}. Put its bytes first.")

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise NotFoundError(f"{sha256[:70]!r} is no sha256.")
        return self._folder / sha256[:2] / sha256


def damaged(path: Path) -> StoreError:
    """The error for a file whose bytes have changed."""
    return StoreError(f"{path} is damaged: its bytes have another sha256. Restore it, or import the image again.")
