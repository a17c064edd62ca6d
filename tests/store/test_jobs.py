from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.store_for_tests import new_id

from segany import ConflictError, DataError, NotFoundError
from segany.store import MAX_ATTEMPTS, Store


def test_job_from_start_to_end(store: Store) -> None:
    job = store.jobs.submit("export", {"format": "coco"})
    assert (job.state, job.arguments, job.attempts, job.result) == ("queued", {"format": "coco"}, 0, None)
    lease = store.jobs.claim(["export"], 60)
    assert lease is not None
    assert (lease.job.id, lease.job.state, lease.job.attempts) == (job.id, "running", 1)
    assert store.jobs.claim(["export"], 60) is None
    store.jobs.report(lease, 3, 10, "images", "coco.json")
    now = store.jobs.get(job.id)
    assert (now.done, now.total, now.unit, now.message) == (3, 10, "images", "coco.json")
    done = store.jobs.finish(lease, {"files": ["a", 1.5, None]})
    assert (done.state, done.result) == ("done", {"files": ["a", 1.5, None]})
    assert store.jobs.get(job.id) == done
    assert store.jobs.claim(["export"], 60) is None


def test_jobs_are_done_in_order_and_by_kind(store: Store) -> None:
    first, second, third = (store.jobs.submit(kind, {}) for kind in ("a", "b", "a"))
    assert [job.id for job in store.jobs.list()] == [third.id, second.id, first.id]
    claimed = [store.jobs.claim(["a"], 60), store.jobs.claim(["a"], 60), store.jobs.claim(["a"], 60)]
    assert [lease and lease.job.id for lease in claimed] == [first.id, third.id, None]
    assert [job.id for job in store.jobs.list("queued")] == [second.id]
    assert len(store.jobs.list(limit=1)) == 1


def test_idempotency_key_makes_one_job(store: Store) -> None:
    with ThreadPoolExecutor(10) as pool:
        jobs = list(pool.map(lambda _: store.jobs.submit("export", {}, "once"), range(10)))
    assert len({job.id for job in jobs}) == 1
    lease = store.jobs.claim(["export"], 60)
    assert lease is not None
    store.jobs.finish(lease)
    assert store.jobs.submit("export", {}, "once").state == "done"
    with pytest.raises(DataError, match="was used"):
        store.jobs.submit("import", {}, "once")


def test_every_job_is_claimed_once(store: Store) -> None:
    jobs = [store.jobs.submit("a", {"number": number}) for number in range(30)]

    def work(_worker: int) -> list[str]:
        done = []
        while (lease := store.jobs.claim(["a"], 60)) is not None:
            done.append(store.jobs.finish(lease, lease.job.arguments["number"]).id)
        return done

    with ThreadPoolExecutor(8) as pool:
        done = [job_id for part in pool.map(work, range(8)) for job_id in part]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert all(store.jobs.get(job.id).result == number for number, job in enumerate(jobs))


def test_job_of_a_gone_worker_is_taken_over(store: Store) -> None:
    job = store.jobs.submit("a", {})
    first = store.jobs.claim(["a"], 0.05)
    assert first is not None
    time.sleep(0.1)
    second = store.jobs.claim(["a"], 60)
    assert second is not None
    assert (second.job.id, second.job.attempts) == (job.id, 2)
    for late in (
        lambda: store.jobs.finish(first),
        lambda: store.jobs.fail(first, "x"),
        lambda: store.jobs.report(first, 1, 2),
        lambda: store.jobs.extend(first, 60),
        lambda: store.jobs.canceled(first),
        lambda: store.jobs.release(first),
    ):
        with pytest.raises(ConflictError, match="ran out"):
            late()
    assert store.jobs.finish(second, "mine").result == "mine"


def test_extended_lease_is_not_taken(store: Store) -> None:
    store.jobs.submit("a", {})
    lease = store.jobs.claim(["a"], 0.05)
    assert lease is not None
    store.jobs.extend(lease, 60)
    time.sleep(0.1)
    assert store.jobs.claim(["a"], 60) is None


def test_job_that_always_ends_its_process_is_given_up(store: Store) -> None:
    job = store.jobs.submit("a", {})
    for attempt in range(MAX_ATTEMPTS):
        lease = store.jobs.claim(["a"], 60)
        assert lease is not None
        assert lease.job.attempts == attempt + 1
        assert store.jobs.requeue_abandoned() == 1
    assert store.jobs.claim(["a"], 60) is None
    failed = store.jobs.get(job.id)
    assert failed.state == "failed"
    assert f"interrupted {MAX_ATTEMPTS} times" in failed.message


def test_released_job_is_done_again_and_does_not_count(store: Store) -> None:
    store.jobs.submit("a", {})
    for _ in range(MAX_ATTEMPTS + 2):
        lease = store.jobs.claim(["a"], 60)
        assert lease is not None
        store.jobs.release(lease)


def test_canceling(store: Store) -> None:
    queued, running, done = (store.jobs.submit("a", {}) for _ in range(3))
    assert store.jobs.cancel(queued.id).state == "canceled"
    lease = store.jobs.claim(["a"], 60)
    assert lease is not None
    assert lease.job.id == running.id
    asked = store.jobs.cancel(running.id)
    assert (asked.state, asked.cancel_requested) == ("running", True)
    assert store.jobs.report(lease, 1, 2).cancel_requested
    assert store.jobs.canceled(lease).state == "canceled"
    last = store.jobs.claim(["a"], 60)
    assert last is not None
    store.jobs.finish(last)
    assert store.jobs.cancel(done.id).state == "done"
    with pytest.raises(NotFoundError):
        store.jobs.cancel(new_id())


def test_canceled_job_of_a_gone_worker_is_not_started_again(store: Store) -> None:
    job = store.jobs.submit("a", {})
    assert store.jobs.claim(["a"], 60) is not None
    store.jobs.cancel(job.id)
    store.jobs.requeue_abandoned()
    assert store.jobs.claim(["a"], 60) is None
    assert store.jobs.get(job.id).state == "canceled"


@pytest.mark.parametrize("arguments", [{"a": object()}, {"a": float("nan")}, [1]])
def test_arguments_must_be_json(store: Store, arguments: object) -> None:
    with pytest.raises(DataError):
        store.jobs.submit("a", arguments)  # type: ignore[arg-type]


def test_result_must_be_json(store: Store) -> None:
    store.jobs.submit("a", {})
    lease = store.jobs.claim(["a"], 60)
    assert lease is not None
    with pytest.raises(DataError):
        store.jobs.finish(lease, object())
