"""Imports and exports as jobs. Arguments are JSON values; files are found by ids, never by paths of a request."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from segany.core.errors import NotFoundError
from segany.core.progress import ProgressCallback
from segany.jobs.exchange.exporting import export_annotations
from segany.jobs.exchange.importing import Skipped, import_annotations
from segany.jobs.exchange.uploads import Uploads
from segany.jobs.queue import JobFunction
from segany.store import ItemFilter, Job, Store

MAX_LISTED = 1000
"""Entries of what was skipped in the result of a job."""

KEPT_EXPORTS = 20
"""Exported files of a project that are kept: the newest."""

_MAX_MESSAGE = 300


def import_handler(store: Store) -> JobFunction:
    """What does jobs of the kind "import".

    Their arguments are `format`, `upload`, the id of one of `Uploads`, and `author`. The result has `items`, `objects`,
    and `skipped`, each with `name` and `message`. The uploads of jobs that have ended are removed when the next one
    begins.
    """
    uploads = Uploads(store)

    def run(job: Job, progress: ProgressCallback) -> dict[str, Any]:
        uploads.remove_ended()
        arguments = job.arguments
        sources = uploads.files(arguments["upload"])
        report = import_annotations(
            store, sources, arguments["format"], author=str(arguments.get("author", "")), progress=progress
        )
        skipped = list(report.skipped[:MAX_LISTED])
        if len(report.skipped) > MAX_LISTED:
            skipped.append(Skipped("", f"And {len(report.skipped) - MAX_LISTED:,} more."))
        return {
            "items": report.items,
            "objects": report.objects,
            "skipped": [{"name": one.name[:_MAX_MESSAGE], "message": one.message[:_MAX_MESSAGE]} for one in skipped],
        }

    return run


def export_handler(store: Store) -> JobFunction:
    """What does jobs of the kind "export".

    Their arguments are `format`, `filter` with the `state` of the items, if any, and `images`. The result has `file`,
    the name of the file that `exported_file` finds, `items`, `objects` and `lost`.
    """

    def run(job: Job, progress: ProgressCallback) -> dict[str, Any]:
        arguments = job.arguments
        name = str(arguments["format"])
        chosen = ItemFilter(state=(arguments.get("filter") or {}).get("state"))
        target = _exports(store) / job.id / f"{name}.zip"
        _remove_old_exports(store)
        try:
            report = export_annotations(
                store, target, name, item_filter=chosen, images=arguments.get("images") is True, progress=progress
            )
        except BaseException:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return {"file": target.name, "items": report.items, "objects": report.objects, "lost": list(report.lost)}

    return run


def exported_file(store: Store, job_id: str) -> Path:
    """The file of a job of the kind "export" that is done.

    Raises:
        NotFoundError: there is no such job, it is not done, or its file was removed for newer ones.
    """
    job = store.jobs.get(job_id)
    name = job.result.get("file") if isinstance(job.result, dict) else None
    if job.kind != "export" or job.state != "done" or not isinstance(name, str):
        raise NotFoundError(f"The job {job.id} has no exported file: it is {job.state}.")
    path = _exports(store) / job.id / name
    if not path.is_file():
        raise NotFoundError("The exported file was removed, since there are newer ones. Export again.")
    return path


def _exports(store: Store) -> Path:
    return store.folder / "cache" / "exports"


def _remove_old_exports(store: Store) -> None:
    if not _exports(store).is_dir():
        return
    folders = sorted(_exports(store).iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[KEPT_EXPORTS - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
