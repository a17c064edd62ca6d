"""Items in batches, epoch after epoch: the same for a seed, whatever processes load and take them."""

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

from segany.core.errors import DataError, check
from segany.data.item import Dataset, SkippedItem, TrainingItem
from segany.data.loading import Loaded, Slot, load_slot
from segany.data.transforms import ItemConfig
from segany.data.workers import WorkerPool

JUDGED_FROM = 100
"""Images that must have been met before the share of damaged ones is judged, so that chance does not decide.

Of a smaller dataset, all must have been met."""

AHEAD_PER_WORKER = 2
"""Items that are loaded ahead, beside those of the next batch."""


@dataclass(frozen=True)
class LoadReport:
    """What a loader of this process has met so far.

    Attributes:
        items: how many were given out.
        damaged: images that could not be read, each once, in the order they were met.
        without_masks: names of images of which no mask was left at least once: there were none, they covered
            nearly all of it, or jitter had cut them off.
    """

    items: int
    damaged: tuple[SkippedItem, ...]
    without_masks: tuple[str, ...]


class Loader:
    """Batches of items of a dataset.

    An epoch is a random order of the dataset, filled up from its beginning to whole batches. Every batch is
    shared out evenly among the processes of a training, so that together they see exactly what one would see
    alone. An item depends on the seed, the epoch and its place in the order alone: the number of workers, of
    processes, and stopping and resuming make no difference.

    An image that is damaged or has no masks left is replaced by another, drawn at random from the same seed.
    So the others stay where they are, and all batches are of one size.

    Iterating gives the rest of the current epoch and ends; iterating again gives the next one, or what was left
    where the loop over the first was left early. One iteration at a time. Use it in a `with` block, or `close`
    it, when it has workers.

    Attributes:
        epoch, batch: numbers of the next batch to be given out, from 0.
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
        """Load nothing yet.

        Args:
            dataset: where images come from. With workers, it must go through pickle.
            config: what items are.
            batch_size: items in a batch, over all processes together.
            seed: of everything random, from 0.
            workers: processes that load items ahead; with 0, items are loaded when they are asked for.
            process: number of this process of the training, and how many there are.
            max_damaged: the share of damaged images above which iterating raises.

        Raises:
            ConfigError: a value is out of range, or the batch cannot be shared out evenly.
            DataError: the dataset is empty.
        """
        rank, world = process
        check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}.")
        check(seed >= 0, f"seed must not be negative, got {seed}.")
        check(workers >= 0, f"workers must not be negative, got {workers}.")
        check(0 <= rank < world, f"process must be a number from 0 and how many there are, got {process}.")
        check(batch_size % world == 0, f"A batch of {batch_size} cannot be shared out evenly among {world} processes.")
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
        """Batches in an epoch."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[list[TrainingItem]]:
        """The rest of the current epoch: this process's share of each batch, in order.

        Raises:
            DataError: too many images are damaged, no item can be made, or a worker has died.
        """
        loading = self._loaded_ahead() if self._workers else self._loaded_at_once()
        try:
            for batch in range(self.batch, len(self)):
                loaded = [next(loading) for _ in range(self._share)]
                for each in loaded:
                    self._note(each)
                self._judge()
                # Before it is given out: whoever asks for the state with the batch in hand has had it.
                self.epoch, self.batch = (self.epoch, batch + 1) if batch + 1 < len(self) else (self.epoch + 1, 0)
                yield [each.item for each in loaded]
        finally:
            loading.close()

    @property
    def report(self) -> LoadReport:
        """What was met so far, by this process and since it began."""
        names = self.dataset.names
        return LoadReport(
            self._items,
            tuple(SkippedItem(names[index], reason) for index, reason in self._damaged.items()),
            tuple(names[index] for index in self._without_masks),
        )

    def state(self) -> dict[str, Any]:
        """Where it is, for JSON: the next batch, and what `restore` checks.

        A batch counts as done once it was given out.
        """
        return {"epoch": self.epoch, "batch": self.batch, **self._identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was. Not while iterating.

        Raises:
            DataError: the state is of another dataset, seed or batch size, or damaged. The number of workers
                and of processes may differ.
        """
        for key, here in self._identity.items():
            if state.get(key) != here:
                raise DataError(
                    f"The state cannot be restored: its {key} is {state.get(key)!r}, but here it is {here!r}. "
                    "Resume with the dataset, seed and batch size that it began with."
                )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not isinstance(epoch, int) or not isinstance(batch, int) or epoch < 0 or not 0 <= batch < len(self):
            raise DataError(f"The state cannot be restored: it says batch {batch!r} of epoch {epoch!r}.")
        self.epoch, self.batch = epoch, batch

    def close(self) -> None:
        """End the workers. Iterating again starts new ones."""
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
        """What decides which items there are, besides their configuration."""
        names = hashlib.sha256("\0".join(self.dataset.names).encode()).hexdigest()
        return {"seed": self.seed, "batch_size": self.batch_size, "images": len(self.dataset), "names": names[:16]}

    def _slots(self) -> Iterator[Slot]:
        """What is left of this epoch for this process."""
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
                f"{damaged} of the {met} images met so far are damaged, which is too many to go on. "
                f"The first: {first.name}: {first.reason}"
            )
