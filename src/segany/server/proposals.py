"""The job that finds the automatic masks of images, for the page to choose from."""

from __future__ import annotations

from typing import Any

from segany.core.errors import ImageError, NotFoundError
from segany.core.progress import ProgressCallback, ProgressEvent, report
from segany.jobs.queue import JobFunction
from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
from segany.server.embeddings import Urgency
from segany.server.model_host import wait_for
from segany.server.state import ServerState
from segany.store import Item, Job

PROPOSALS_CONFIG = AutomaticConfig(pred_iou_thresh=0.5, stability_score_thresh=0.5, points_per_batch=4)
"""The lowest thresholds that the page's sliders reach: it filters what is kept, and never computes again. Small
batches, because a click waits for the end of one."""


def proposals_handler(state: ServerState, config: AutomaticConfig = PROPOSALS_CONFIG) -> JobFunction:
    """The function for jobs of the kind "proposals".

    Arguments of a job: `item`, the id of an item; without it, all items of the project. What the model has found
    already is not computed again. The result has the number of `masks`, of `items`, and the items `skipped` because
    their images cannot be read.
    """

    def handle(job: Job, progress: ProgressCallback) -> dict[str, Any]:
        item = job.arguments.get("item")
        if item is not None:
            return {
                "items": 1,
                "masks": _find(state, state.store.items.get(str(item)), progress, config),
                "skipped": [],
            }
        total = state.store.items.page(limit=0).total
        masks, skipped = 0, []
        for done, one in enumerate(state.store.items.iterate()):
            step = ProgressEvent(one.name, done, total, "images")
            progress(step)
            try:
                masks += _find(state, one, _repeating(progress, step), config)
            except ImageError as error:
                skipped.append({"name": one.name, "message": str(error)})
        report(progress, "", total, total, "images")
        return {"items": total - len(skipped), "masks": masks, "skipped": skipped}

    return handle


def _find(state: ServerState, item: Item, progress: ProgressCallback, config: AutomaticConfig) -> int:
    """Find and keep the masks of an item, and return how many there are."""
    model, version = state.model_host.model_for_jobs(progress)
    try:
        return len(state.store.proposals.get(item.id, version).instances)
    except NotFoundError:
        pass
    request = state.model_host.embeddings.request(item.sha256, lambda: state.store.items.file(item.id), Urgency.JOB)
    try:
        embedding = wait_for(request, progress, item.name)
    finally:
        request.cancel()  # nobody waits any more
    instances = AutomaticMaskGenerator(model, config).generate(embedding, progress=progress)
    state.store.proposals.put(item.id, version, instances)
    return len(instances)


def _repeating(progress: ProgressCallback, step: ProgressEvent) -> ProgressCallback:
    """Report the same step of a job while its parts advance, so that it can be canceled between them."""
    return lambda _event: progress(step)
