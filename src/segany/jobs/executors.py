"""Executors: they run a function over chunks of items, in this process or on a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from segany.core.errors import ConfigError, check
from segany.core.extras import import_extra

_logger = logging.getLogger(__name__)

ChunkT = TypeVar("ChunkT")
ResultT = TypeVar("ResultT")
ChunkT_contra = TypeVar("ChunkT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)

RETRIES = 1
"""How often a chunk is done again whose worker died."""


class ChunkWork(Protocol[ChunkT_contra, ResultT_co]):
    """What is done with each chunk: a small picklable value."""

    def open(self) -> Callable[[ChunkT_contra], ResultT_co]:
        """Prepare, such as load a model. It is called once in each worker.

        The function that it returns may be called again with a chunk whose worker was killed.
        """
        ...


class Executor(Protocol):
    """Runs work over chunks."""

    def map(self, work: ChunkWork[ChunkT, ResultT], chunks: Sequence[ChunkT]) -> Iterator[Outcome[ResultT]]:
        """Yield the outcome of each chunk, in any order.

        Raises:
            SeganyError: `open` failed, or a chunk's function raised an error.
        """
        ...


@dataclass(frozen=True)
class Outcome(Generic[ResultT]):
    """The outcome of a chunk.

    Attributes:
        index: which chunk.
        result: what the function returned; None if every worker died that ran it.
    """

    index: int
    result: ResultT | None


@dataclass(frozen=True)
class LocalExecutor:
    """Runs chunks one after the other in this process."""

    def map(self, work: ChunkWork[ChunkT, ResultT], chunks: Sequence[ChunkT]) -> Iterator[Outcome[ResultT]]:
        if chunks:
            run = work.open()
            for index, chunk in enumerate(chunks):
                yield Outcome(index, run(chunk))


@dataclass(frozen=True)
class RayExecutor:
    """Runs chunks by Ray Data, on a cluster or on processes of this machine.

    The workers are actors, which load the model once. Ray restarts those that die, and gives their chunk to another
    one; a chunk is given up when `RETRIES` is exceeded.

    A cluster that this starts authenticates by a token, which keeps others out: some processes of Ray listen on all
    interfaces. A worker computes with as many threads as it has CPU cores.

    Attributes:
        address: address of a running cluster, such as "auto" or "ray://host:10001"; None starts one on this machine.
        workers: number of workers; None for as many as the cluster has cores or GPUs for.
        cpus: CPU cores of each worker.
        gpus: GPUs of each worker, of which a fraction shares one.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        check(self.workers is None or self.workers >= 1, f"workers must be at least 1, got {self.workers}.")
        check(self.cpus >= 1, f"cpus must be at least 1, got {self.cpus}.")
        check(0 <= self.gpus <= 64, f"gpus must lie in 0..64, got {self.gpus}.")

    def map(self, work: ChunkWork[ChunkT, ResultT], chunks: Sequence[ChunkT]) -> Iterator[Outcome[ResultT]]:
        if not chunks:
            return
        with self._cluster() as ray:
            dataset = self._dataset(ray, work, chunks)
            missing = set(range(len(chunks)))
            for row in dataset.iter_rows():
                outcome = row["outcome"]
                if isinstance(outcome, Exception):
                    raise outcome
                missing.discard(outcome.index)
                yield outcome
            for index in sorted(missing):
                yield Outcome(index, None)

    def _dataset(self, ray: Any, work: ChunkWork[Any, Any], chunks: Sequence[Any]) -> Any:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # of workers that died: errors of ours are results
        rows = [{"index": index, "chunk": chunk} for index, chunk in enumerate(chunks)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray 2.64 will have another way to limit retries, which 2.60 lacks
            return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Actor,
                fn_constructor_kwargs={"work": work},
                batch_size=1,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=self._pool_size(ray, len(chunks))),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=-1,
                max_task_retries=RETRIES,
            )

    def _pool_size(self, ray: Any, chunks: int) -> int:
        resources = ray.cluster_resources()
        room = int(resources.get("CPU", 1) // self.cpus)
        if self.gpus:
            room = min(room, int(resources.get("GPU", 0) / self.gpus))
        if room < 1:
            raise ConfigError(
                f"The cluster has {resources.get('CPU', 0):g} CPU cores and {resources.get('GPU', 0):g} GPUs, which is "
                f"not enough for a worker with {self.cpus} cores and {self.gpus:g} GPUs."
            )
        return max(1, min(room, chunks, self.workers or room))

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster, or start one that ends with the `with` block."""
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # anyone who reaches a cluster without it runs code there
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ core writes to the terminal
        ray = import_extra("ray", "This needs Ray", "scale")
        import_extra("ray.data", "This needs Ray Data", "scale")
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        is_ours = not ray.is_initialized()
        if is_ours:
            local: dict[str, Any] = {}
            if self.address is None:
                local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
                local["num_cpus"] = None if self.workers is None else self.workers * self.cpus
            try:
                ray.init(address=self.address or "local", log_to_driver=False, logging_level="ERROR", **local)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                where = "on this machine" if self.address is None else f"at {self.address}"
                raise ConfigError(f"There is no Ray cluster {where}: {error}") from error
        try:
            yield ray
        finally:
            if is_ours:
                ray.shutdown()


class _Actor:
    """A worker of Ray."""

    def __init__(self, work: ChunkWork[Any, Any]) -> None:
        self._work = work
        self._run: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        index, chunk = int(batch["index"][0]), batch["chunk"][0]
        try:
            if self._run is None:
                self._run = self._work.open()
            return {"outcome": [Outcome(index, self._run(chunk))]}
        except Exception as error:  # raised by the driver; for Ray, an exception is a reason to lose the chunk
            return {"outcome": [error]}
