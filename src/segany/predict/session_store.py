"""The store of a video session's results on disk, so that memory does not grow with the length of the video."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.core.arrays import SizeHW
from segany.core.errors import OutputError, VideoError
from segany.core.files import replacing
from segany.core.instances import Instances

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


class SessionStore:
    """An SQLite database of results, and in saved sessions also of prompts and memory banks.

    It is thread-safe. Methods raise `OutputError` if the disk is not writable, and `VideoError` after `close`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        with _writable("The results of tracking"):
            with NamedTemporaryFile(prefix="segany-session-", suffix=".sqlite", delete=False) as file:
                self._path = Path(file.name)
            # Runs when the session is closed or garbage-collected, or the interpreter exits.
            self._remove = weakref.finalize(self, _unlink, self._path)
            self._database: sqlite3.Connection | None = _connect(self._path)
            # This is a scratch file: durability is not needed.
            self._database.executescript("pragma journal_mode = off; pragma synchronous = off;" + _SCHEMA)

    def put(self, frame: int, instances: Instances) -> None:
        """Store the objects of a frame, replacing earlier results of the same objects.

        Args:
            frame: number of the frame.
            instances: with object ids, and the optional column `reverse`, bool [O].
        """
        ids, scores, reverse = (x.tolist() for x in (instances.object_ids, instances.scores, instances.reverse))
        rows = [
            (object_id, frame, counts, score, is_reverse)
            for object_id, counts, score, is_reverse in zip(ids, instances.rle_counts, scores, reverse, strict=True)
        ]
        with _writable("The results of tracking"), self._lock:
            self._open.executemany("replace into results values (?, ?, ?, ?, ?)", rows)

    def get(self, frame: int, object_ids: Sequence[int], size_hw: SizeHW) -> Instances:
        """Return the stored instances of `object_ids` in a frame.

        Raises:
            InstancesError: the session was loaded from a file with damaged masks.
        """
        query = "select counts, score, reverse from results where object_id = ? and frame = ?"
        with self._lock:
            rows = [(item, self._open.execute(query, (item, frame)).fetchone()) for item in object_ids]
        found = [(item, *row) for item, row in rows if row is not None]
        return Instances(
            [counts for _, counts, _, _ in found],
            size_hw,
            scores=[score for _, _, score, _ in found],
            object_ids=[item for item, _, _, _ in found],
            sources="track",
            columns={"reverse": np.array([is_reverse for _, _, _, is_reverse in found], dtype=np.bool_)},
        )

    def drop(self, object_id: int, frame: int | None = None) -> None:
        """Remove the results of an object, in one frame or in all frames."""
        with _writable("The results of tracking"), self._lock:
            if frame is None:
                self._open.execute("delete from results where object_id = ?", (object_id,))
            else:
                self._open.execute("delete from results where object_id = ? and frame = ?", (object_id, frame))

    def save(self, path: Path, facts: dict[str, Any], arrays: Iterator[tuple[int, int, str, Arrays]]) -> None:
        """Write a copy of the database atomically, with metadata (`facts`) and arrays by object, frame and kind."""
        database = self._open
        with _writable(str(path)), self._lock, replacing(path) as temporary:
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
        """Load a file that `save` wrote. Returns the metadata.

        Raises:
            VideoError: the file is missing, is not a saved session, or has another format version.
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
        """Yield the saved arrays in the order of `save`: object id, frame, kind and arrays."""
        query = "select object_id, frame, kind, data from arrays order by rowid"
        for object_id, frame, kind, data in self._open.execute(query):
            with np.load(io.BytesIO(data), allow_pickle=False) as values:
                yield object_id, frame, kind, dict(values)

    def close(self) -> None:
        """Remove the scratch file. Closing again does nothing."""
        with self._lock:
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
    """Convert errors of reading a saved session to `VideoError`."""
    try:
        yield
    except (sqlite3.Error, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise VideoError(f"{path} is not a saved session of segany, or it is damaged: {error}.") from error


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
