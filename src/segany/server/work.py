"""The kinds of jobs, and which function does each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from segany.core.progress import ProgressCallback
from segany.jobs.queue import JobFunction
from segany.server.answers import ITEMS_CHANGED
from segany.server.proposals import proposals_handler
from segany.server.state import ServerState
from segany.server.transfers import Transfers
from segany.store import ItemFilter, Job

JobMaker: TypeAlias = "Callable[[ServerState], JobFunction]"


def proposals_function(state: ServerState) -> JobFunction:
    """Automatic masks of an item."""
    return proposals_handler(state)


def import_function(state: ServerState) -> JobFunction:
    """Annotations from files that were uploaded."""

    def run(job: Job, progress: ProgressCallback) -> Any:
        from segany.jobs.exchange import import_annotations  # type: ignore[import-not-found,unused-ignore]

        transfers, upload = Transfers(state.store), job.arguments["upload"]
        try:
            source = transfers.source(upload)
            report = import_annotations(state.store, source, job.arguments["format"], progress=progress)
        finally:
            state.events.publish(ITEMS_CHANGED)
        transfers.discard(upload)
        return asdict(report)

    return run


def export_function(state: ServerState) -> JobFunction:
    """Annotations to a file that can be downloaded."""

    def run(job: Job, progress: ProgressCallback) -> Any:
        from segany.jobs.exchange import export_annotations  # type: ignore[import-not-found,unused-ignore]

        chosen = ItemFilter(**job.arguments["filter"])
        folder = Transfers(state.store).export_folder(job.id)
        report = export_annotations(state.store, folder, job.arguments["format"], item_filter=chosen, progress=progress)
        return asdict(report)

    return run


KINDS: Mapping[str, JobMaker] = {
    "proposals": proposals_function,
    "import": import_function,
    "export": export_function,
}
