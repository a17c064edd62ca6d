"""Results of `segany.jobs.scale` as proposals of a project."""

from __future__ import annotations

from dataclasses import dataclass

from segany.core.errors import DataError
from segany.core.progress import ProgressCallback, report
from segany.jobs.parquet import read_parts
from segany.store import Store


@dataclass(frozen=True)
class Ingested:
    """What became of the rows: how many items have new proposals, and how many images the project does not have."""

    items: int
    unknown: int


def ingest(store: Store, folder: str, progress: ProgressCallback | None = None) -> Ingested:
    """Keep automatic masks as proposals of the items with the same file, in place of those that the model had found.

    Args:
        store: the project.
        folder: path or URL of the results.
        progress: called for each image, with the unit "images".

    Raises:
        DataError: a part cannot be read, or masks are of another size than the item of the same file.
    """
    items, unknown = 0, 0
    for row in read_parts(folder):
        report(progress, row.url, items + unknown, None, "images")
        found = store.items.with_sha256(row.sha256)
        for item in found:
            if item.size_hw != row.instances.size_hw:
                raise DataError(f"{row.url} has masks of {row.instances.size_hw}, but {item.name!r} is {item.size_hw}.")
            store.proposals.put(item.id, row.model[:500], row.instances)
        items += len(found)
        unknown += not found
    return Ingested(items, unknown)
