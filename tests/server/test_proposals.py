from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live_for_tests import State, add_picture, model_ref, serving, until

from segany import AutomaticConfig, AutomaticMaskGenerator, CanceledError, ModelRef
from segany.core.errors import NotFoundError
from segany.core.progress import ProgressEvent
from segany.jobs.queue import JobQueue, QueueConfig
from segany.server.proposals import proposals_handler
from segany.store import Job

QUICK = AutomaticConfig(points_per_side=8, pred_iou_thresh=0.0, stability_score_thresh=0.0)


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return model_ref(tmp_path_factory.mktemp("model"))


@pytest.fixture
def state(tmp_path: Path, ref: ModelRef) -> Iterator[State]:
    with serving(tmp_path, ref) as served:
        yield served


@contextlib.contextmanager
def queue_of(state: State) -> Iterator[JobQueue]:
    with JobQueue(state.store, {"proposals": proposals_handler(state, QUICK)}, QueueConfig(poll_seconds=0.05)) as queue:
        yield queue


def run(state: State, queue: JobQueue, **arguments: Any) -> Job:
    job = state.store.jobs.submit("proposals", arguments)
    queue.wake()
    until(lambda: state.store.jobs.get(job.id).state not in ("queued", "running"))
    return state.store.jobs.get(job.id)


def test_masks_of_an_item_are_found_and_kept_once(state: State, ref: ModelRef) -> None:
    item = add_picture(state.store, 0)
    expected = AutomaticMaskGenerator(ref.load(), QUICK).generate(state.store.items.file(item))
    assert len(expected) > 0
    with queue_of(state) as queue:
        job = run(state, queue, item=item)
        assert (job.state, job.result) == ("done", {"items": 1, "masks": len(expected), "skipped": []})
        assert (job.done, job.total, job.unit) == (64, 64, "points")
        kept = state.store.proposals.get(item)
        assert kept.model_version == state.model_host.model_version
        assert kept.instances.rle_counts == expected.rle_counts
        assert kept.instances.columns["stability_score"].tolist() == expected.columns["stability_score"].tolist()
        assert run(state, queue, item=item).result == job.result
    assert state.store.proposals.get(item).created_at == kept.created_at  # not computed again


def test_job_without_an_item_does_the_project_and_skips_what_cannot_be_read(state: State) -> None:
    items = [add_picture(state.store, seed) for seed in range(3)]
    state.store.items.file(items[1]).unlink()
    with queue_of(state) as queue:
        job = run(state, queue)
    assert job.state == "done"
    assert job.result["items"] == 2
    assert [skipped["name"] for skipped in job.result["skipped"]] == ["1.png"]
    assert (job.done, job.total, job.unit) == (3, 3, "images")
    found = [len(state.store.proposals.get(item).instances) for item in (items[0], items[2])]
    assert job.result["masks"] == sum(found)


def test_unreadable_image_fails_a_job_for_it(state: State) -> None:
    item = add_picture(state.store, 0)
    state.store.items.file(item).unlink()
    with queue_of(state) as queue:
        job = run(state, queue, item=item)
    assert (job.state, job.result) == ("failed", None)
    assert "missing" in job.message


def test_unknown_item_fails_a_job(state: State) -> None:
    with queue_of(state) as queue:
        assert run(state, queue, item="nothing").state == "failed"


def test_canceled_job_keeps_nothing(state: State) -> None:
    item = add_picture(state.store, 0)
    seen: list[ProgressEvent] = []

    def cancel(event: ProgressEvent) -> None:
        seen.append(event)
        if event.unit == "points":
            raise CanceledError("The work was canceled.")

    job = state.store.jobs.submit("proposals", {"item": item})
    with pytest.raises(CanceledError):
        proposals_handler(state, QUICK)(job, cancel)
    assert seen[-1].done < 64
    with pytest.raises(NotFoundError):
        state.store.proposals.get(item)


def test_job_fails_without_a_model(tmp_path: Path) -> None:
    with serving(tmp_path, ModelRef(str(tmp_path / "none.pt"))) as state, queue_of(state) as queue:
        job = run(state, queue, item=add_picture(state.store, 0))
    assert job.state == "failed"
    assert "none.pt" in job.message
