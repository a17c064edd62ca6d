"""What was measured so far: a file of JSON lines, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segany.core.errors import OutputError
from segany.core.files import path_errors, write_error, write_file
from segany.evaluate.protocol import Record

JOURNAL_VERSION = 2
"""Goes up when earlier lines mean something else."""


@dataclass(frozen=True)
class Entry:
    """What was measured of one image or video: `records`, and how many objects were left out."""

    records: list[Record]
    left_out: int = 0


class Journal:
    """The entries of one protocol on one dataset, by the name of the image or video.

    The first line of its file holds what the numbers depend on, each other line one entry. A last line that
    an interrupt cut short is measured again.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Read the file, or begin it.

        Args:
            path: of the file.
            header: what the numbers depend on; JSON values.
            overwrite: begin it anew in any case.

        Raises:
            OutputError: the file is of another model, other data or other settings, is no such file, or cannot be
                written.
        """
        self.path = path
        self.entries: dict[str, Entry] = {}
        first = _line({"version": JOURNAL_VERSION, **header})
        with path_errors(path, OutputError):
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() and not overwrite else []
        if lines and lines[0] and f"{lines[0]}\n" != first:
            raise OutputError(
                f"{path} was made with another model, other data or other settings. Choose another folder, or say "
                "that it may be overwritten (--overwrite)."
            )
        for line in lines[1:-1]:  # after the last line break there is nothing, or a line that was cut short
            self._read(line)
        whole = [_entry_line(name, entry) for name, entry in self.entries.items()]
        write_file(path, "".join([first, *whole]).encode())

    def add(self, name: str, entry: Entry) -> None:
        """Write one more entry.

        Raises:
            OutputError: there is no space or no permission.
        """
        self.entries[name] = entry
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_entry_line(name, entry))
        except OSError as error:
            raise write_error(self.path, error) from error

    def _read(self, line: str) -> None:
        try:
            values = json.loads(line)
            self.entries[str(values["name"])] = Entry(list(values["records"]), int(values["left_out"]))
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(f"{self.path} is damaged. Remove it, and what it held is measured again.") from error


def _entry_line(name: str, entry: Entry) -> str:
    return _line({"name": name, "records": entry.records, "left_out": entry.left_out})


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, default=str) + "\n"
