"""Records of finished items, from which an interrupted job resumes.

A record is a JSON file for each item, written after all results of the item. It holds a digest of the item's content
and, for each part of the result (a file format, a protocol), its settings and a value. A part is done if content and
settings are the same. Dates are not compared, because copying a file changes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segany.core.errors import DataError
from segany.core.files import read_file, write_error, write_file

_logger = logging.getLogger(__name__)

RECORDS_FOLDER = ".segany"
"""Name of the folder of records inside a folder of results."""

RECORD_VERSION = 2
"""Is incremented when the meaning of records changes. Items with records of other versions are done again."""

_PLAIN_NAME = re.compile(r"[^/\\:.][^/\\:]{0,99}")


@dataclass(frozen=True)
class _Record:
    name: str
    content_id: str
    parts: Mapping[str, tuple[Any, Any]]  # settings and value


class DoneRecords:
    """The records in a folder. Several processes may write to one folder; the last record of an item counts."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is created with the first record."""
        self.folder = folder

    def find(self, name: str, content_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The recorded values of those parts of an item that are done.

        Args:
            name: name of the item.
            content_id: digest of its content.
            settings: the wanted parts, each with the settings that it depends on, as JSON values.
        """
        record = self._read(name)
        if record is None or record.content_id != content_id:
            return {}
        return {
            part: record.parts[part][1]
            for part, wanted in settings.items()
            if part in record.parts and record.parts[part][0] == _plain(wanted)
        }

    def find_conflict(self, settings: Mapping[str, Any]) -> str | None:
        """The name of any item in the folder that has a record of one of these parts with other settings."""
        wanted = _plain(settings)
        for path in sorted(self.folder.glob("*.json")):
            record = _read_record(path)
            made = {} if record is None else {part: value for part, (value, _) in record.parts.items()}
            if record is not None and any(part in made and made[part] != value for part, value in wanted.items()):
                return record.name
        return None

    def clear(self) -> None:
        """Remove all records.

        Raises:
            OutputError: one of them cannot be removed.
        """
        for path in self.folder.glob("*.json"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise write_error(path, error) from error

    def write(self, name: str, content_id: str, settings: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Record that parts of an item are done. Records of its other parts stay if the content is the same.

        Args:
            name, content_id: as for `find`.
            settings: the settings of each part.
            values: the value of each part, JSON values that `find` returns.

        Raises:
            OutputError: the record could not be written.
        """
        before = self._read(name)
        parts = dict(before.parts) if before is not None and before.content_id == content_id else {}
        parts |= {part: (settings[part], value) for part, value in values.items()}
        record = {
            "version": RECORD_VERSION,
            "name": name,
            "content_id": content_id,
            "parts": {part: {"settings": each, "value": value} for part, (each, value) in parts.items()},
        }
        write_file(self.path_of(name), json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n")

    def is_writable(self) -> bool:
        """Whether records can be written."""
        probe = self.folder / f"{uuid.uuid4().hex}.probe"
        try:
            write_file(probe, b"probe")
            probe.unlink()
        except OSError:  # includes OutputError
            return False
        return True

    def _read(self, name: str) -> _Record | None:
        """The record of an item; None if there is no usable one."""
        record = _read_record(self.path_of(name))
        return record if record is not None and record.name == name else None

    def path_of(self, name: str) -> Path:
        """The file of the record of an item: its name if that is a valid file name, and else a digest of it."""
        plain = _PLAIN_NAME.fullmatch(name) is not None
        return self.folder / f"{name if plain else hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read_record(path: Path) -> _Record | None:
    """The record in a file; None if there is none or, with a warning, if it is damaged."""
    if not path.exists():
        return None
    try:
        data = read_file(path, DataError)
    except DataError as error:
        _logger.warning("A record cannot be read, so its item is done again: %s", error)
        return None
    try:
        values = json.loads(data)
        if values["version"] != RECORD_VERSION:
            return None
        parts = {str(part): (each["settings"], each["value"]) for part, each in values["parts"].items()}
        return _Record(str(values["name"]), str(values["content_id"]), parts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        _logger.warning("The record %s is damaged, so its item is done again.", path)
        return None


def _plain(value: Any) -> Any:
    """A value as it is after writing and reading JSON, with lists instead of tuples."""
    return json.loads(json.dumps(value, default=str))
