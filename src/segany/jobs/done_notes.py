"""Notes on which images are done, by which a command that was interrupted goes on where it stopped.

A note is a small JSON file, `OUT/.segany/NAME.json`, written once all files of the image are. It holds
the sha256 of the image file, the settings, and the files written. An image counts as done when its note
says the same of all three and the files are there: not by dates, which copying changes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segany.core.files import write_file
from segany.data.formats.writing import json_bytes

NOTES_FOLDER = ".segany"

NOTE_VERSION = 1
"""Goes up when earlier notes mean something else; images with those are done again."""


class DoneNotes:
    """The notes in a folder of results, for one way of making them."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        """Take notes for a folder.

        Args:
            out: the folder of the results.
            settings: what the results depend on besides the image; JSON values.
        """
        self.out = out
        self.settings = json.loads(json.dumps(settings))  # as it comes back from a file, lists for tuples

    def is_done(self, name: str, sha256: str, formats: Iterable[str]) -> bool:
        """Whether the image of that content is there in all these formats."""
        files = self._files(name, sha256)
        return all(item in files and all((self.out / path).is_file() for path in files[item]) for item in formats)

    def write(self, name: str, sha256: str, written: Mapping[str, Sequence[Path]]) -> None:
        """Note that an image is done in some formats, besides those it was done in before.

        Args:
            name: of the image's files.
            sha256: of the image file.
            written: the files of every format, within the folder of the results.

        Raises:
            OutputError: the note could not be written.
        """
        new = {item: [path.relative_to(self.out).as_posix() for path in paths] for item, paths in written.items()}
        note = {
            "version": NOTE_VERSION,
            "sha256": sha256,
            "settings": self.settings,
            "files": {**self._files(name, sha256), **new},
        }
        write_file(self._path(name), json_bytes(note))

    def _files(self, name: str, sha256: str) -> dict[str, list[str]]:
        """The files an earlier run wrote of the same image with the same settings; none without a note of that."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._path(name).read_text(encoding="utf-8"))
            facts = (note["version"], note["sha256"], note["settings"])
            if facts == (NOTE_VERSION, sha256, self.settings):
                return dict(note["files"])
        return {}

    def _path(self, name: str) -> Path:
        return self.out / NOTES_FOLDER / f"{name}.json"
