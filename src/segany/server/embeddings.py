"""The embeddings of a project's images: from memory, from disk, or computed, one at a time, the most urgent first."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segany.core.embedding import Embedding
from segany.core.embedding_cache import EmbeddingCache
from segany.core.errors import EmbeddingError, OutputError, SeganyError
from segany.imaging.image import content_id, read_image
from segany.predict.image import ImagePredictor

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20
"""Size of the embeddings in memory: 64 of SAM and MobileSAM, 16 of SAM 2."""

MAX_DISK_BYTES = 10 * 2**30
"""Size of the embeddings on disk: 2,500 of SAM and MobileSAM, 600 of SAM 2."""

IDLE_SECONDS = 0.3
"""An image that nobody looks at yet is encoded when nobody has clicked for so long, ..."""

PATIENCE_SECONDS = 3.0
"""... or after this time, since the pointer may never rest."""

MAX_FAILURES = 1000
"""Images of which it is remembered why they have no embedding."""


class Urgency(enum.IntEnum):
    """Who waits for an embedding: somebody who looks at the image, a job, or nobody yet."""

    OPENED = 0
    JOB = 1
    PREFETCH = 2


@dataclass
class _Wanted:
    """An embedding that was asked for, once or several times."""

    find_file: Callable[[], Path]
    serial: int
    since: float
    asked: list[tuple[Urgency, Future[Embedding]]] = field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        return any(not future.cancelled() for _, future in self.asked)

    @property
    def urgency(self) -> Urgency:
        return min((urgency for urgency, future in self.asked if not future.cancelled()), default=Urgency.PREFETCH)


class Embeddings:
    """The embeddings of images, by the sha256 of their files. Threads may share it.

    Requests wait until `run` is called with a model, which computes them until `close`; `fail` rejects them.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, max_disk_bytes: int = MAX_DISK_BYTES) -> None:
        """Start without a model.

        Args:
            folder: of the embedding cache.
            max_bytes: size of the embeddings in memory; the last one is kept whatever its size.
            max_disk_bytes: size of those in the folder, likewise.
        """
        self._folder, self._max_bytes, self._max_disk_bytes = folder, max_bytes, max_disk_bytes
        self._changed = threading.Condition()
        self._memory: OrderedDict[str, Embedding] = OrderedDict()
        self._content_ids: dict[str, str] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._failures: OrderedDict[str, str] = OrderedDict()
        self._cache: EmbeddingCache | None = None
        self._failure: str | None = None
        self._last_used = 0.0
        self._serial = 0

    def get(self, sha256: str) -> Embedding | None:
        """The embedding of an image if it is in memory."""
        with self._changed:
            return self._get(sha256)

    def request(
        self, sha256: str, find_file: Callable[[], Path], urgency: Urgency = Urgency.OPENED
    ) -> Future[Embedding]:
        """Ask for an embedding. Canceling the future withdraws the request.

        Args:
            sha256: of the image file.
            find_file: returns its path, in another thread.
            urgency: requests of greater urgency come first, and of these the newest.

        Returns:
            The embedding, or an error: why the model could not be loaded, `ImageError`, or any of the model's.
        """
        future: Future[Embedding] = Future()
        with self._changed:
            if (found := self._get(sha256)) is not None:
                future.set_result(found)
            elif self._failure is not None:
                future.set_exception(SeganyError(self._failure))
            else:
                self._serial += 1
                self._failures.pop(sha256, None)
                wanted = self._wanted.setdefault(sha256, _Wanted(find_file, 0, time.monotonic()))
                wanted.serial = self._serial
                wanted.asked.append((urgency, future))
                self._changed.notify_all()
        return future

    @property
    def failure(self) -> str | None:
        """Why requests are rejected; None while they are not."""
        return self._failure

    def is_coming(self, sha256: str) -> bool:
        """Whether the embedding of an image was asked for and is not there yet."""
        with self._changed:
            wanted = self._wanted.get(sha256)
            return wanted is not None and wanted.is_wanted

    def failure_of(self, sha256: str) -> str | None:
        """Why the last request for the embedding of an image failed; None where it did not."""
        with self._changed:
            return self._failures.get(sha256)

    def find(self, sha256: str) -> Embedding | None:
        """The embedding of an image that was asked for since the start, from memory or from disk."""
        with self._changed:
            found, cache, content = self._get(sha256), self._cache, self._content_ids.get(sha256)
        return cache.find(content) if found is None and cache is not None and content is not None else found

    def note_use(self) -> None:
        """Somebody clicks: images that nobody looks at yet can wait."""
        self._last_used = time.monotonic()

    def run(self, predictor: ImagePredictor) -> None:
        """Compute what is asked for until `close`."""
        model = predictor.model
        self._cache = EmbeddingCache(
            self._folder, model.name, model.encoder_id, model.processor.preprocessing, max_bytes=self._max_disk_bytes
        )
        while (entry := self._next()) is not None:
            sha256, wanted = entry
            try:
                embedding = self._make(predictor, self._cache, sha256, wanted.find_file)
            except Exception as error:  # of the image or of the model; who asked says so
                self._answer(sha256, error)
            else:
                self._answer(sha256, embedding)

    def fail(self, message: str) -> None:
        """Reject all requests from now on, with this error."""
        with self._changed:
            self._failure = message
            futures = [future for wanted in self._wanted.values() for _, future in wanted.asked]
            self._wanted.clear()
            self._changed.notify_all()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(SeganyError(message))

    def close(self) -> None:
        """End `run` after the image it is at."""
        self.fail("The server is stopping.")

    def _get(self, sha256: str) -> Embedding | None:
        found = self._memory.get(sha256)
        if found is not None:
            self._memory.move_to_end(sha256)
        return found

    def _next(self) -> tuple[str, _Wanted] | None:
        """Wait for the most urgent request; None at the end."""
        with self._changed:
            while self._failure is None:
                self._wanted = {sha256: wanted for sha256, wanted in self._wanted.items() if wanted.is_wanted}
                wait = None
                if self._wanted:
                    chosen = min(self._wanted.items(), key=lambda entry: (entry[1].urgency, -entry[1].serial))
                    wait = self._wait_for_idleness(chosen[1])
                    if wait <= 0:
                        return chosen
                self._changed.wait(wait)
        return None

    def _wait_for_idleness(self, wanted: _Wanted) -> float:
        if wanted.urgency != Urgency.PREFETCH:
            return 0.0
        return min(self._last_used + IDLE_SECONDS, wanted.since + PATIENCE_SECONDS) - time.monotonic()

    def _make(
        self, predictor: ImagePredictor, cache: EmbeddingCache, sha256: str, find_file: Callable[[], Path]
    ) -> Embedding:
        pixels = read_image(find_file(), predictor.max_pixels, options=predictor.pixel_options)
        content = self._content_ids[sha256] = content_id(pixels)
        found = cache.find(content)
        if found is not None:
            return found
        embedding = predictor.embed(pixels).to_cpu()
        if not all(np.isfinite(feature).all() for feature in embedding.features):
            raise EmbeddingError("The model returned values that are not numbers for this image. Load the model again.")
        try:
            cache.store(content, embedding.features, embedding.size_hw)
        except OutputError as error:  # it will be computed again after a restart
            log.warning("An embedding is kept in memory only: %s", error)
        return embedding

    def _answer(self, sha256: str, result: Embedding | Exception) -> None:
        with self._changed:
            wanted = self._wanted.pop(sha256, None)
            if isinstance(result, Embedding):
                self._keep(sha256, result)
            else:
                self._failures[sha256] = message_of(result)
                if len(self._failures) > MAX_FAILURES:
                    self._failures.popitem(last=False)
        for _, future in wanted.asked if wanted is not None else ():
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(result, Embedding):
                future.set_result(result)
            else:
                future.set_exception(result)

    def _keep(self, sha256: str, embedding: Embedding) -> None:
        self._memory[sha256] = embedding
        self._memory.move_to_end(sha256)
        size = sum(_byte_count(kept) for kept in self._memory.values())
        while size > self._max_bytes and len(self._memory) > 1:
            size -= _byte_count(self._memory.popitem(last=False)[1])


def message_of(error: Exception) -> str:
    """What a page is told of an error."""
    return str(error) if isinstance(error, SeganyError) else f"{type(error).__name__}: {error}"


def _byte_count(embedding: Embedding) -> int:
    return sum(int(feature.nbytes) for feature in embedding.features)
