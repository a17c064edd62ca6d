"""Processes that load items.

They are started anew and not forked: a fork of a process with threads, as every one with PyTorch has, may
hang. So the program's main module is imported again in each, but nothing here imports PyTorch.
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


@dataclass(frozen=True, eq=False)
class _Answer:
    """What a worker found. `loaded` has no item, which comes packed."""

    loaded: Loaded
    packed: PackedItem


class WorkerPool:
    """Worker processes that share a dataset. They end with `close`, with this process, and however that ends."""

    def __init__(self, dataset: Dataset, config: ItemConfig, workers: int) -> None:
        """Each worker gets a copy of the dataset, through pickle, once.

        Raises:
            DataError: the dataset does not go through pickle.
        """
        try:
            packed = pickle.dumps(dataset)
        except Exception as error:  # whatever a dataset of the user's holds
            raise _not_sent(error) from error
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(packed, config),
        )

    def submit(self, slot: Slot) -> Future[_Answer]:
        """Begin to fill a slot.

        Raises:
            DataError: a worker has died.
        """
        try:
            with _interrupts_held():  # which may start a worker
                return self._executor.submit(_load, slot)
        except BrokenProcessPool as error:
            raise _died() from error

    def result(self, waiting: Future[_Answer]) -> Loaded:
        """Wait for a slot to be filled.

        Raises:
            DataError: as for `load_slot`; or a worker has died, or cannot have the dataset.
        """
        try:
            answer = waiting.result()
        except BrokenProcessPool as error:
            raise _died() from error
        return replace(answer.loaded, item=answer.packed.unpacked())

    def close(self) -> None:
        """End the workers, once they have done what is in their hands."""
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block. Processes that are started in it never see one.

    It goes to all processes of a terminal; the one that started the workers ends them. A worker that is only
    starting cannot do anything about it by itself yet.
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
        "A process that loads images has died, most likely for want of memory: each holds a few images at once. "
        "Use fewer workers. (A program of one's own must start under `if __name__ == '__main__':`.)"
    )


def _not_sent(error: Exception) -> DataError:
    return DataError(
        f"The dataset cannot be given to processes that load images ({type(error).__name__}: {error}). Use no workers "
        "(--set loop.workers=0), or have its class in a module that can be imported: a recipe's own file is none."
    )


_dataset: Dataset | DataError | None = None
_config: ItemConfig | None = None
"""What a worker loads from, or why it cannot. Set once, in workers only."""


def _begin(packed: bytes, config: ItemConfig) -> None:
    global _dataset, _config  # all that the tasks of a worker share
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found: Dataset | DataError = pickle.loads(packed)
    except Exception as error:  # raised here, it would end the worker without a word
        found = _not_sent(error)
    _dataset, _config = found, config


def _end_with_parent() -> None:
    """Where the parent is killed nobody tells the workers, and they would wait for ever."""
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
