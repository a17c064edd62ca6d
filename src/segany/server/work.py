"""The kinds of jobs, and what does each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from segany.core.progress import ProgressCallback
from segany.engine import RETRAIN, retrain_handler
from segany.jobs.exchange import export_handler, import_handler
from segany.jobs.queue import JobFunction
from segany.server.answers import ITEMS_CHANGED
from segany.server.proposals import proposals_handler
from segany.server.state import ServerState
from segany.store import Job

JobMaker: TypeAlias = "Callable[[ServerState], JobFunction]"


def _import(state: ServerState) -> JobFunction:
    """Imports, after which every page loads its list again."""
    handle = import_handler(state.store)

    def run(job: Job, progress: ProgressCallback) -> Any:
        try:
            return handle(job, progress)
        finally:
            state.events.publish(ITEMS_CHANGED)

    return run


KINDS: Mapping[str, JobMaker] = {
    "proposals": proposals_handler,
    "import": _import,
    "export": lambda state: export_handler(state.store),
    RETRAIN: lambda state: retrain_handler(state.store),
}
