"""Worker processes of the data loader.

They are spawned instead of forked, because a fork of a process with threads, such as those of PyTorch, may deadlock.
Every worker therefore imports the program's main module again. This module does not import PyTorch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from segany.core.errors import DataError
from segany.data.item import Dataset
from segany.data.loading import Loaded, PackedItem, Slot, load_slot
from segany.data.transforms import ItemConfig

MAX_WORKERS = 1024
"""More processes than any machine runs; each takes a few hundred megabytes."""


@dataclass(frozen=True, eq=False)
class _Answer:
    """The result of a worker. The item of `loaded` is in `packed`."""

    loaded: Loaded
    packed: PackedItem


class WorkerPool:
    """Worker processes with a copy of the dataset each. They end with `close`, and when this process ends."""

    def __init__(self, dataset: Dataset, config: ItemConfig, workers: int) -> None:
        """Pickle the dataset once, for all workers.

        Raises:
            DataError: the dataset is not picklable.
        """
        try:
            packed = pickle.dumps(dataset)
        except Exception as error:  # pickling a dataset of the user can raise any exception
            raise _not_sent(error) from error
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(packed, config),
        )

    def submit(self, slot: Slot) -> Future[_Answer]:
        """Start loading the item of a slot.

        Raises:
            DataError: a worker process has died.
        """
        try:
            with _interrupts_held():  # submitting may start a worker
                return self._executor.submit(_load, slot)
        except BrokenProcessPool as error:
            raise _died() from error

    def result(self, waiting: Future[_Answer]) -> Loaded:
        """Wait for the item of a slot.

        Raises:
            DataError: as for `load_slot`, or a worker process has died or cannot unpickle the dataset.
        """
        try:
            answer = waiting.result()
        except BrokenProcessPool as error:
            raise _died() from error
        return replace(answer.loaded, item=answer.packed.unpacked())

    def close(self) -> None:
        """Cancel pending slots, and end the workers after their current ones."""
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT inside the `with` block. Processes that are started in it inherit the blocked signal.

    Ctrl-C sends SIGINT to all processes of a terminal, and this process ends the workers. A worker that has just
    started could not ignore the signal yet.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _died() -> DataError:
    return DataError(
        "A worker process of the data loader has died, most likely because memory ran out: each holds a few images. "
        "Use fewer workers. (Your own program must be guarded by `if __name__ == '__main__':`.)"
    )


def _not_sent(error: Exception) -> DataError:
    return DataError(
        f"The dataset cannot be given to worker processes ({type(error).__name__}: {error}). Use no workers "
        "(--set loop.workers=0), or define its class in a module that can be imported, which a recipe file cannot."
    )


_dataset: Dataset | DataError | None = None
_config: ItemConfig | None = None
"""The dataset of a worker, or the error of unpickling it, and its config. They are set once, in workers only."""


def _begin(packed: bytes, config: ItemConfig) -> None:
    global _dataset, _config  # the executor passes nothing else to the calls of a worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found: Dataset | DataError = pickle.loads(packed)
    except Exception as error:  # raised in the initializer, it would end the worker without its message
        found = _not_sent(error)
    _dataset, _config = found, config


def _end_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load(slot: Slot) -> _Answer:
    if isinstance(_dataset, DataError):
        raise _dataset
    assert _dataset is not None
    assert _config is not None
    loaded = load_slot(_dataset, _config, slot)
    packed = PackedItem.of(loaded.item)
    return _Answer(replace(loaded, item=None), packed)  # type: ignore[arg-type]
