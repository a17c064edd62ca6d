"""The results of a video session, on disk: they grow with the video, the memory must not."""

from __future__ import annotations

import io
import json
import sqlite3
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segany.core.errors import OutputError, VideoError
from segany.core.files import replacing

FORMAT = 1

_SCHEMA = """
create table facts (name text primary key, value text not null);
create table results (
    object_id integer not null, frame integer not null, counts text not null, score real not null,
    reverse integer not null, primary key (object_id, frame)
) without rowid;
create table arrays (
    object_id integer not null, frame integer not null, kind text not null, data blob not null,
    primary key (object_id, frame, kind)
);
"""

Arrays = dict[str, npt.NDArray[Any]]


class StoredResult(NamedTuple):
    """One object in one frame.

    Attributes:
        counts: the mask as COCO run lengths.
        score: logit of the object being visible.
        reverse: whether it was tracked backward.
    """

    counts: str
    score: float
    reverse: bool


class SessionStore:
    """An SQLite database: results as they come, and, once saved, all that tracking goes on from.

    What it is asked to do raises `OutputError` where the disk does not allow it, and `VideoError` once it
    is closed.
    """

    def __init__(self) -> None:
        with _writable("The results of tracking"):
            with NamedTemporaryFile(prefix="segany-session-", suffix=".sqlite", delete=False) as file:
                self._path = Path(file.name)
            # Runs when the session is closed, forgotten, or the interpreter ends.
            self._remove = weakref.finalize(self, _unlink, self._path)
            self._database: sqlite3.Connection | None = _connect(self._path)
            # It is a scratch file until it is saved: nothing is lost when the machine stops.
            self._database.executescript("pragma journal_mode = off; pragma synchronous = off;" + _SCHEMA)

    def put_result(self, frame: int, object_id: int, result: StoredResult) -> None:
        """Keep a result; replaces an earlier one."""
        with _writable("The results of tracking"):
            self._open.execute("replace into results values (?, ?, ?, ?, ?)", (object_id, frame, *result))

    def result(self, frame: int, object_id: int) -> StoredResult | None:
        """What was kept, if anything."""
        query = "select counts, score, reverse from results where object_id = ? and frame = ?"
        row = self._open.execute(query, (object_id, frame)).fetchone()
        return None if row is None else StoredResult(row[0], row[1], bool(row[2]))

    def drop_results(self, object_id: int, frame: int | None = None) -> None:
        """Forget the results of an object, in one frame or in all."""
        with _writable("The results of tracking"):
            if frame is None:
                self._open.execute("delete from results where object_id = ?", (object_id,))
            else:
                self._open.execute("delete from results where object_id = ? and frame = ?", (object_id, frame))

    def save(self, path: Path, facts: dict[str, Any], arrays: Iterator[tuple[int, int, str, Arrays]]) -> None:
        """Write a copy, whole or not at all, with facts and with arrays by object, frame and kind."""
        database = self._open
        with _writable(str(path)), replacing(path) as temporary:
            database.commit()
            database.execute("vacuum into ?", (str(temporary),))
            copy = _connect(temporary)
            try:
                copy.execute("delete from facts")
                copy.execute("delete from arrays")
                values = [(name, json.dumps(value)) for name, value in {"format": FORMAT, **facts}.items()]
                copy.executemany("insert into facts values (?, ?)", values)
                for object_id, frame, kind, content in arrays:
                    data = _packed(content)
                    copy.execute("insert into arrays values (?, ?, ?, ?)", (object_id, frame, kind, data))
                copy.commit()
            finally:
                copy.close()

    def load(self, path: Path) -> dict[str, Any]:
        """Take over what `save` wrote; returns the facts.

        Raises:
            VideoError: the file is missing, or no session of segany's, or of a later version.
        """
        if not path.is_file():
            raise VideoError(f"{path} does not exist. Give a file that `session.save` wrote.")
        with readable(path):
            saved = _connect(path)
            try:
                health = saved.execute("pragma quick_check").fetchone()[0]
                if health != "ok":
                    raise ValueError(health)
                facts = {name: json.loads(value) for name, value in saved.execute("select name, value from facts")}
                if facts["format"] != FORMAT:
                    raise VideoError(f"{path} has format {facts['format']}; this segany reads {FORMAT}. Update it.")
                saved.backup(self._open)
            finally:
                saved.close()
        return facts

    def arrays(self) -> Iterator[tuple[int, int, str, Arrays]]:
        """The arrays that were saved: object, frame, kind and values, in the order in which they were."""
        query = "select object_id, frame, kind, data from arrays order by rowid"
        for object_id, frame, kind, data in self._open.execute(query):
            with np.load(io.BytesIO(data), allow_pickle=False) as values:
                yield object_id, frame, kind, dict(values)

    def close(self) -> None:
        """Remove the scratch file. Doing it again does nothing."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._remove()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            raise VideoError("The session is closed. Open the video again.")
        return self._database


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell of whatever is wrong with a saved session as a `VideoError`."""
    try:
        yield
    except (sqlite3.Error, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise VideoError(f"{path} is no session of segany's, or it is damaged: {error}.") from error


@contextmanager
def _writable(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OutputError(f"{what} could not be written: {error}. Is there space, and permission?") from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False)


def _packed(content: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **content)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
