"""The results of a video session, on disk: they grow with the video, the memory must not."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from segany.errors import VideoError
from segany.files import replacing

FORMAT = 1

_SCHEMA = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists results (
    frame integer not null, object_id integer not null, counts text not null, score real not null,
    primary key (object_id, frame)
) without rowid;
create table if not exists arrays (
    object_id integer not null, frame integer not null, kind text not null, data blob not null,
    primary key (object_id, frame, kind)
);
"""


class SessionStore:
    """An SQLite database: results as they come, and, once saved, all that tracking goes on from."""

    def __init__(self) -> None:
        with NamedTemporaryFile(prefix="segany-session-", suffix=".sqlite", delete=False) as file:
            self._path = Path(file.name)
        self._database = _connect(self._path)
        # It is a scratch file until it is saved, so that nothing is lost when the machine stops.
        self._database.executescript("pragma journal_mode = off; pragma synchronous = off;" + _SCHEMA)

    def put_result(self, frame: int, object_id: int, counts: str, score: float) -> None:
        """Keep a mask as COCO run lengths; replaces an earlier one."""
        self._database.execute("replace into results values (?, ?, ?, ?)", (frame, object_id, counts, score))

    def result(self, frame: int, object_id: int) -> tuple[str, float] | None:
        """Run lengths and score, if there are any."""
        query = "select counts, score from results where object_id = ? and frame = ?"
        row: tuple[str, float] | None = self._database.execute(query, (object_id, frame)).fetchone()
        return row

    def frames(self) -> list[int]:
        """All frames with results, ascending."""
        return [row[0] for row in self._database.execute("select distinct frame from results order by frame")]

    def drop_results(self, object_id: int, frame: int | None = None) -> None:
        """Forget the results of an object, in one frame or in all."""
        if frame is None:
            self._database.execute("delete from results where object_id = ?", (object_id,))
        else:
            self._database.execute("delete from results where object_id = ? and frame = ?", (object_id, frame))

    def save(
        self, path: Path, facts: dict[str, Any], arrays: Iterator[tuple[int, int, str, dict[str, npt.NDArray[Any]]]]
    ) -> None:
        """Write a copy, whole or not at all, with facts and with arrays by object, frame and kind."""
        with replacing(path) as temporary:
            self._database.commit()
            self._database.execute("vacuum into ?", (str(temporary),))
            copy = _connect(temporary)
            try:
                copy.execute("delete from facts")
                copy.execute("delete from arrays")
                copy.executemany(
                    "insert into facts values (?, ?)",
                    [(name, json.dumps(value)) for name, value in {"format": FORMAT, **facts}.items()],
                )
                for object_id, frame, kind, values in arrays:
                    buffer = io.BytesIO()
                    np.savez(buffer, **values)  # type: ignore[arg-type]
                    copy.execute("insert into arrays values (?, ?, ?, ?)", (object_id, frame, kind, buffer.getvalue()))
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
        with _readable(path):
            saved = _connect(path)
            try:
                saved.execute("pragma quick_check").fetchone()
                facts = {name: json.loads(value) for name, value in saved.execute("select name, value from facts")}
                if facts.get("format") != FORMAT:
                    raise VideoError(f"{path} has format {facts.get('format')}; this segany reads {FORMAT}. Update it.")
                saved.backup(self._database)
            finally:
                saved.close()
        return facts

    def arrays(self) -> Iterator[tuple[int, int, str, dict[str, npt.NDArray[Any]]]]:
        """The arrays that were saved: object, frame, kind and values, in the order in which they were."""
        with _readable(self._path):
            for object_id, frame, kind, data in self._database.execute(
                "select object_id, frame, kind, data from arrays order by rowid"
            ):
                with np.load(io.BytesIO(data), allow_pickle=False) as values:
                    yield object_id, frame, kind, dict(values)

    def close(self) -> None:
        """Remove the scratch file. Doing it again does nothing."""
        self._database.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise VideoError(f"{path} is no session of segany's, or it is damaged: {error}.") from error
