from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segany import DataError
from segany.core.progress import ProgressCallback, report
from segany.jobs.queue import JobQueue, QueueConfig
from segany.store import Job, Store

QUICK = QueueConfig(workers=2, lease_seconds=0.3, poll_seconds=0.05)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project") as opened:
        yield opened


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _wait(store: Store, job: Job, state: str) -> Job:
    _until(lambda: store.jobs.get(job.id).state == state)
    return store.jobs.get(job.id)


def _add(job: Job, progress: ProgressCallback) -> int:
    report(progress, "adding", 2, 2, "numbers")
    return sum(job.arguments["numbers"])


def _wait_for_cancellation(job: Job, progress: ProgressCallback) -> None:
    while True:
        report(progress, "waiting", 1, None, "steps")
        time.sleep(0.01)


def test_job_is_done_and_told_of(store: Store) -> None:
    seen: list[Job] = []
    with JobQueue(store, {"add": _add}, QUICK, seen.append) as queue:
        job = store.jobs.submit("add", {"numbers": [3, 4]})
        queue.wake()
        done = _wait(store, job, "done")
        assert (done.result, done.done, done.total, done.unit) == (7, 2, 2, "numbers")
        _until(lambda: [known.state for known in seen] == ["running", "running", "done"])


def test_job_that_fails_says_why(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def fail(job: Job, progress: ProgressCallback) -> None:
        raise DataError("The file is damaged.") if job.arguments else RuntimeError("a bug")

    with JobQueue(store, {"fail": fail}, QUICK):
        assert _wait(store, store.jobs.submit("fail", {"x": 1}), "failed").message == "The file is damaged."
        assert _wait(store, store.jobs.submit("fail", {}), "failed").message == "RuntimeError: a bug"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]


def test_running_job_is_canceled(store: Store) -> None:
    with JobQueue(store, {"wait": _wait_for_cancellation}, QUICK) as queue:
        here, elsewhere = store.jobs.submit("wait", {}), store.jobs.submit("wait", {})
        for job in (here, elsewhere):
            _wait(store, job, "running")
        queue.cancel(here.id)
        store.jobs.cancel(elsewhere.id)  # as another process would
        for job in (here, elsewhere):
            _wait(store, job, "canceled")


def test_long_job_keeps_its_lease(store: Store) -> None:
    starts: list[int] = []

    def slow(job: Job, progress: ProgressCallback) -> str:
        starts.append(1)
        time.sleep(3 * QUICK.lease_seconds)
        return "done"

    with JobQueue(store, {"slow": slow}, QUICK):
        assert _wait(store, store.jobs.submit("slow", {}), "done").attempts == 1
    assert len(starts) == 1


def test_stopping_gives_running_jobs_back(store: Store) -> None:
    with JobQueue(store, {"wait": _wait_for_cancellation}, QUICK):
        job = store.jobs.submit("wait", {})
        _wait(store, job, "running")
    given_back = store.jobs.get(job.id)
    assert (given_back.state, given_back.attempts) == ("queued", 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("job", "lease"))]


def test_jobs_survive_kill_9_and_end_once(tmp_path: Path) -> None:
    Store.create(tmp_path / "project").close()
    program = (
        "import os, sys\n"
        "from segany.jobs.queue import JobQueue\n"
        "from segany.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "store.jobs.submit('work', {}, 'first')\n"
        "store.jobs.submit('work', {}, 'second')\n"
        "def work(job, progress):\n"
        "    os.kill(os.getpid(), 9)\n"
        "with JobQueue(store, {'work': work}):\n"
        "    import time; time.sleep(60)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / "project")], check=False)
    assert run.returncode == -9
    done: list[str] = []

    def work(job: Job, progress: ProgressCallback) -> None:
        done.append(job.id)

    with Store.open(tmp_path / "project") as store, JobQueue(store, {"work": work}):  # with leases of half a minute
        started = time.monotonic()
        jobs = [store.jobs.submit("work", {}, key) for key in ("first", "second")]
        for job in jobs:
            _wait(store, job, "done")
        assert time.monotonic() - started < 20
        assert sorted(done) == sorted(job.id for job in jobs)
        assert [store.jobs.get(job.id).attempts for job in jobs] == [2, 1]
