"""The job queue: threads that run the jobs of a project, with progress and cancellation.

docs/architecture.md says why it is not one of DBOS.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

from segany.core.errors import CanceledError, ConflictError, SeganyError
from segany.core.progress import Cancellation, ProgressCallback, ProgressEvent
from segany.store import Job, Lease, Store

log = logging.getLogger(__name__)

JobFunction: TypeAlias = "Callable[[Job, ProgressCallback], Any]"
"""Runs a job, reports its progress, and returns the result, a JSON value.

If the process is killed, the function is called again with the same job. It must therefore resume from what is stored,
or be idempotent.
"""

REPORT_SECONDS = 0.25
"""Shortest time between two writes of the progress to the store."""


@dataclass(frozen=True)
class QueueConfig:
    """Settings of a job queue.

    Attributes:
        workers: number of threads, each of which runs one job at a time.
        lease_seconds: duration of the lease of a running job, after which another process takes over the jobs of a
            process that was killed.
        poll_seconds: interval at which the store is polled for jobs that other processes submitted.
    """

    workers: int = 1
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0


class JobQueue:
    """Runs the jobs of an open project in threads.

    with JobQueue(store, {"export": export}) as queue:
        store.jobs.submit("export", {"format": "coco"})
        queue.wake()
    """

    def __init__(
        self,
        store: Store,
        functions: Mapping[str, JobFunction],
        config: QueueConfig | None = None,
        on_change: Callable[[Job], None] | None = None,
    ) -> None:
        """Create a queue; entering the `with` block starts the threads.

        Args:
            store: the store, opened exclusively: jobs that an earlier process left are run at once.
            functions: the function of each kind of job.
            config: settings of the queue.
            on_change: called with a job after each change, in the thread that runs it.
        """
        self.store, self.functions, self.config = store, dict(functions), config or QueueConfig()
        self.on_change = on_change or (lambda _job: None)
        self._stopping = threading.Event()
        self._work = threading.Condition()
        self._awake = 0
        self._running: dict[str, Cancellation] = {}
        self._threads = [threading.Thread(target=self._run, name=f"job {i}") for i in range(self.config.workers)]

    def __enter__(self) -> JobQueue:
        self.store.jobs.requeue_abandoned()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the threads. Running jobs end at their next progress report, and are queued again."""
        self._stopping.set()
        for cancellation in list(self._running.values()):
            cancellation.cancel()
        self.wake()
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """Look for submitted jobs now, without waiting for the next poll."""
        with self._work:
            self._awake += 1
            self._work.notify_all()

    def cancel(self, job_id: str) -> Job:
        """Request the cancellation of a job. If it runs in this process, it ends at its next progress report.

        Raises:
            NotFoundError: the project has no such job.
        """
        job = self.store.jobs.cancel(job_id)
        if (cancellation := self._running.get(job_id)) is not None:
            cancellation.cancel()
        self.on_change(job)
        return job

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._work:
                seen = self._awake
            try:
                lease = self.store.jobs.claim(list(self.functions), self.config.lease_seconds)
            except SeganyError:
                log.exception("Jobs cannot be read from the project; trying again.")
                lease = None
            if lease is not None:
                self._do(lease)
                continue
            with self._work:
                self._work.wait_for(lambda: self._awake != seen or self._stopping.is_set(), self.config.poll_seconds)  # noqa: B023

    def _do(self, lease: Lease) -> None:
        job = lease.job
        cancellation = self._running[job.id] = Cancellation()
        ended = threading.Event()
        holder = threading.Thread(target=self._hold, args=(lease, cancellation, ended), name=f"lease {job.id}")
        holder.start()
        self.on_change(job)
        try:
            result = self.functions[job.kind](job, cancellation.watch(self._reporter(lease)))
            end = lambda: self.store.jobs.finish(lease, result)  # noqa: E731
        except CanceledError:
            give_back = self._stopping.is_set() and not self.store.jobs.get(job.id).cancel_requested
            end = lambda: (self.store.jobs.release if give_back else self.store.jobs.canceled)(lease)  # noqa: E731
        except SeganyError as error:
            message = str(error)
            end = lambda: self.store.jobs.fail(lease, message)  # noqa: E731
        except Exception as error:
            log.exception("The job %s (%s) failed.", job.id, job.kind)
            message = f"{type(error).__name__}: {error}"
            end = lambda: self.store.jobs.fail(lease, message)  # noqa: E731
        finally:
            ended.set()
            holder.join()
            self._running.pop(job.id, None)
        self._end(job, end)

    def _end(self, job: Job, end: Callable[[], Job]) -> None:
        try:
            self.on_change(end())
        except ConflictError:
            log.warning("The job %s (%s) was taken over by another process.", job.id, job.kind)
        except SeganyError:  # a full disk; the lease runs out, and the job is done again
            log.exception("The end of job %s (%s) could not be stored.", job.id, job.kind)

    def _hold(self, lease: Lease, cancellation: Cancellation, ended: threading.Event) -> None:
        """Extend the lease while the job runs, and cancel the job if another process requested it."""
        while not ended.wait(self.config.lease_seconds / 3):
            try:
                if self.store.jobs.extend(lease, self.config.lease_seconds).cancel_requested:
                    cancellation.cancel()
            except ConflictError:
                cancellation.cancel()
            except SeganyError:
                log.exception("The lease of job %s could not be extended; trying again.", lease.job.id)

    def _reporter(self, lease: Lease) -> ProgressCallback:
        last = 0.0

        def report(event: ProgressEvent) -> None:
            nonlocal last
            is_last = event.total is not None and event.done >= event.total
            if time.monotonic() - last < REPORT_SECONDS and not is_last:
                return
            last = time.monotonic()
            self.on_change(self.store.jobs.report(lease, event.done, event.total or 0, event.unit, event.task))

        return report
