"""Datasets in the layout of SA-1B: images, each with a JSON file of the same name that holds its masks."""

from __future__ import annotations

from typing import Any

from segany.core.instances import Instances
from segany.data.formats.sa1b import from_sa1b
from segany.data.record_folder import RecordFolder


class Sa1bFolder(RecordFolder):
    """A `RecordFolder` in the format of SA-1B."""

    def _parse(self, record: Any) -> tuple[Instances, int | None]:
        instances = from_sa1b(record)
        image_id = record["image"].get("image_id")
        return instances, image_id if isinstance(image_id, int) else None
