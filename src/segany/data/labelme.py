"""Datasets of LabelMe: images, each with a JSON file of the same name that holds its shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segany.core.errors import DataError
from segany.core.instances import Instances
from segany.data.annotations import read_json
from segany.data.formats.labelme import from_labelme
from segany.data.record_folder import RecordFolder

FILES_TRIED = 20
"""JSON files of a folder that are read to tell it from one of SA-1B."""


class LabelMeFolder(RecordFolder):
    """A `RecordFolder` in the format of LabelMe; see `from_labelme`. Ids of categories are those of one file alone."""

    def _parse(self, record: Any) -> tuple[Instances, int | None]:
        return from_labelme(record), None


def is_labelme(files: list[Path]) -> bool:
    """Whether any of some JSON files, of which `FILES_TRIED` are read, is one of LabelMe."""
    for file in files[:FILES_TRIED]:
        try:
            record = read_json(file)
        except DataError:
            continue
        if isinstance(record, dict) and "shapes" in record:
            return True
    return False
