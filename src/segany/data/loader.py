"""The data loader: deterministic batches of training items, for any number of worker and training processes."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from segany.core.errors import MAX_INTEGER, DataError, check
from segany.data.item import Dataset, SkippedItem, TrainingItem
from segany.data.loading import Loaded, Slot, load_slot
from segany.data.transforms import ItemConfig
from segany.data.workers import MAX_WORKERS, WorkerPool

JUDGED_FROM = 100
"""Number of images after which the share of damaged ones is checked, so that a few early ones are no error.

A smaller dataset is checked after all its images."""

AHEAD_PER_WORKER = 2
"""Number of items that each worker prefetches, in addition to those of the next batch."""


@dataclass(frozen=True)
class LoadReport:
    """Counts of the data loader of this process.

    Attributes:
        items: number of items that it has yielded.
        damaged: images that could not be read, each once, in the order in which they were read.
        without_masks: names of images that have had no usable mask at least once: they had none, or the masks covered
            nearly the whole image, or augmentation cropped them off.
    """

    items: int
    damaged: tuple[SkippedItem, ...]
    without_masks: tuple[str, ...]


class Loader:
    """A data loader that yields batches of training items.

    An epoch is a random permutation of the dataset, completed to whole batches with its first images. Every batch is
    divided evenly among the processes of distributed training, so that together they see the same items as a single
    process. An item depends only on the seed, the epoch and its position in the permutation, and not on the number of
    workers or processes, or on interruptions.

    An image that is damaged or has no usable mask is replaced by a random other image, drawn from the same seed. The
    positions of all other images, and the batch size, do not change.

    An iteration yields the rest of the current epoch. The next iteration yields the next epoch, or continues the
    current one if the previous iteration was left early. Only one iteration can run at a time. With workers, use the
    loader in a `with` block, or call `close`.

    Attributes:
        epoch, batch: indices of the next batch, from 0.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ItemConfig,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        process: tuple[int, int] = (0, 1),
        max_damaged: float = 0.5,
    ) -> None:
        """Create a loader, which loads nothing until it is iterated.

        Args:
            dataset: the dataset. With workers, it must be picklable.
            config: config of the training items.
            batch_size: number of items in a batch, over all processes.
            seed: random seed, not negative.
            workers: number of worker processes that prefetch items; 0 loads items in this process.
            process: rank of this training process, and number of processes.
            max_damaged: share of damaged images above which iterating raises an error.

        Raises:
            ConfigError: a value is out of range, or the batch cannot be divided evenly.
            DataError: the dataset is empty.
        """
        rank, world = process
        check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}.")
        check(0 <= seed <= MAX_INTEGER, f"seed must be from 0 to {MAX_INTEGER}, got {seed}.")
        check(0 <= workers <= MAX_WORKERS, f"workers must be from 0 to {MAX_WORKERS}, got {workers}.")
        check(0 <= rank < world, f"process must be a rank from 0 and the number of processes, got {process}.")
        check(batch_size % world == 0, f"A batch of {batch_size} cannot be divided evenly among {world} processes.")
        check(0 <= max_damaged <= 1, f"max_damaged must be from 0 to 1, got {max_damaged}.")
        if not len(dataset):
            raise DataError("The dataset is empty.")
        self.dataset = dataset
        self.config = config
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.batch = 0
        self._workers = workers
        self._rank, self._share = rank, batch_size // world
        self._pool: WorkerPool | None = None
        self._max_damaged = max_damaged
        self._items = 0
        self._met = np.zeros(len(dataset), dtype=np.bool_)
        self._damaged: dict[int, str] = {}
        self._without_masks: dict[int, None] = {}

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[list[TrainingItem]]:
        """Yield this process's share of each batch of the rest of the current epoch.

        Raises:
            DataError: too many images are damaged, no usable image is found, or a worker process has died.
        """
        loading = self._loaded_ahead() if self._workers else self._loaded_at_once()
        try:
            for batch in range(self.batch, len(self)):
                loaded = [next(loading) for _ in range(self._share)]
                for each in loaded:
                    self._note(each)
                self._judge()
                # The position moves on before the yield, so that a state taken after it does not repeat the batch.
                self.epoch, self.batch = (self.epoch, batch + 1) if batch + 1 < len(self) else (self.epoch + 1, 0)
                yield [each.item for each in loaded]
        finally:
            loading.close()

    @property
    def report(self) -> LoadReport:
        """The counts of this process since it started."""
        names = self.dataset.names
        return LoadReport(
            self._items,
            tuple(SkippedItem(names[index], reason) for index, reason in self._damaged.items()),
            tuple(names[index] for index in self._without_masks),
        )

    def state(self) -> dict[str, Any]:
        """The position as JSON values: the next batch, and values that `restore` checks.

        A batch counts as done once it has been yielded.
        """
        return {"epoch": self.epoch, "batch": self.batch, **self._identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the position of a state. It must not be called during an iteration.

        Raises:
            DataError: the state is damaged, or belongs to another dataset, seed or batch size. The numbers of workers
                and processes may differ.
        """
        for key, here in self._identity.items():
            if state.get(key) != here:
                raise DataError(
                    f"The state cannot be restored: its {key} is {state.get(key)!r}, but here it is {here!r}. "
                    "Resume with the dataset, seed and batch size that it started with."
                )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not isinstance(epoch, int) or not isinstance(batch, int) or epoch < 0 or not 0 <= batch < len(self):
            raise DataError(f"The state cannot be restored: batch {batch!r} of epoch {epoch!r} does not exist.")
        self.epoch, self.batch = epoch, batch

    def close(self) -> None:
        """End the worker processes. Another iteration starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """The values that determine the order of items."""
        names = hashlib.sha256("\0".join(self.dataset.names).encode()).hexdigest()
        return {"seed": self.seed, "batch_size": self.batch_size, "images": len(self.dataset), "names": names[:16]}

    def _slots(self) -> Iterator[Slot]:
        """Yield the slots of this process in the rest of the current epoch."""
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        for batch in range(self.batch, len(self)):
            first = batch * self.batch_size + self._rank * self._share
            for place in range(first, first + self._share):
                yield Slot(self.seed, epoch, place, int(order[place % len(order)]))

    def _loaded_at_once(self) -> Generator[Loaded, None, None]:
        for slot in self._slots():
            yield load_slot(self.dataset, self.config, slot)

    def _loaded_ahead(self) -> Generator[Loaded, None, None]:
        if self._pool is None:
            self._pool = WorkerPool(self.dataset, self.config, self._workers)
        pool = self._pool
        ahead = self._share + AHEAD_PER_WORKER * self._workers
        waiting: deque[Future[Any]] = deque()
        try:
            for slot in self._slots():
                waiting.append(pool.submit(slot))
                if len(waiting) > ahead:
                    yield pool.result(waiting.popleft())
            while waiting:
                yield pool.result(waiting.popleft())
        finally:
            for each in waiting:
                each.cancel()

    def _note(self, loaded: Loaded) -> None:
        self._items += 1
        for index, reason in loaded.damaged:
            self._damaged.setdefault(index, reason)
        self._without_masks.update(dict.fromkeys(loaded.without_masks))
        self._met[[loaded.index, *(index for index, _ in loaded.damaged), *loaded.without_masks]] = True

    def _judge(self) -> None:
        met, damaged = int(self._met.sum()), len(self._damaged)
        if met >= min(JUDGED_FROM, len(self.dataset)) and damaged > self._max_damaged * met:
            first = next(iter(self.report.damaged))
            raise DataError(
                f"{damaged} of the {met} images read so far are damaged, which is more than the allowed share. "
                f"The first: {first.name}: {first.reason}"
            )
