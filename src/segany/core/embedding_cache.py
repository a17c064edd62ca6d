"""A cache of embeddings in a folder, keyed by the content of the image and by the encoder and its input."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segany.core.arrays import FloatArray, SizeHW
from segany.core.embedding import Embedding, EmbeddingPrecision, write_embedding
from segany.core.errors import EmbeddingError
from segany.core.preprocessing import Preprocessing

_logger = logging.getLogger(__name__)

_FULL = 0.9
"""Share of the limit that is left when files are deleted."""


@dataclass(frozen=True)
class CacheCounts:
    """Counts of an `EmbeddingCache` since it was opened.

    Attributes:
        found: embeddings read from the folder.
        stored: embeddings written to the folder.
        damaged: files that could not be read.
    """

    found: int = 0
    stored: int = 0
    damaged: int = 0


class EmbeddingCache:
    """The cached embeddings of one image encoder.

    Files are `FOLDER/<encoder>/<xx>/<image>.safetensors`, which `Embedding.load` reads. `<image>` is the `content_id`
    of the image and `<xx>` its first two digits; `<encoder>` is a digest of the model's name, encoder id,
    preprocessing, file precision and memory layout. One folder therefore serves any number of models and datasets, and
    several processes may write to it at once, because writes are atomic. A damaged file counts as a cache miss, is
    logged as a warning, and is overwritten.

    With `max_bytes`, the files that were not used for longest are deleted, those of other encoders included. A process
    that is reading such a file still gets all of it.

    Attributes:
        folder: the files of this encoder; created with the first file.
        counts: embeddings found and stored so far.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        encoder_id: str,
        preprocessing: Preprocessing,
        *,
        precision: EmbeddingPrecision = "fp32",
        channels_last: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        """Open the cache of an encoder.

        Args:
            folder: the folder of all encoders.
            model: name of the model.
            encoder_id: digest of all weights that the features depend on.
            preprocessing: preprocessing of the model.
            precision: dtype in the files; "fp16" rounds the features.
            channels_last: store features with the memory layout [h, w, C] instead of [C, h, w].
            max_bytes: size of the folder of all encoders, above which files are deleted; the last one stored stays.
                None for no limit.
        """
        self._model, self._encoder_id, self._preprocessing = model, encoder_id, preprocessing
        self._precision: EmbeddingPrecision = precision
        self._channels_last = channels_last
        facts = [model, encoder_id, asdict(preprocessing), precision, channels_last]
        self.folder = folder / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self.counts = CacheCounts()
        self._root, self._max_bytes = folder, max_bytes
        self._size: int | None = None  # of the folder, without what other processes have stored since

    def find(self, content_id: str) -> Embedding | None:
        """Return the embedding of an image; None if there is none or its file is damaged."""
        path = self._path(content_id)
        if not path.exists():
            return None
        try:
            embedding = Embedding.load(path)
            embedding.check_model(self._model, self._encoder_id, self._preprocessing)
        except EmbeddingError as error:
            if isinstance(error.__context__, FileNotFoundError):  # it was deleted meanwhile
                return None
            _logger.warning("A cached embedding is computed again: %s", error)
            self._count(damaged=1)
            return None
        self._count(found=1)
        if self._max_bytes is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # file systems need not note when a file is read
        return embedding

    def store(self, content_id: str, features: Sequence[FloatArray], size_hw: SizeHW) -> Path:
        """Write the features of an image, [C, h, w] each. Returns the path.

        Args:
            content_id: content id of the image.
            features: the output of the image encoder for it.
            size_hw: size of the image in pixels.

        Raises:
            EmbeddingError: a value is too large for float16, and `precision` is "fp16".
            OutputError: the file cannot be written.
        """
        embedding = Embedding(tuple(features), size_hw, self._preprocessing, self._model, self._encoder_id, content_id)
        path = write_embedding(embedding, self._path(content_id), self._precision, channels_last=self._channels_last)
        self._count(stored=1)
        if self._max_bytes is not None:
            self._keep_below(self._max_bytes, path)
        return path

    def _keep_below(self, max_bytes: int, newest: Path) -> None:
        """Delete the files that were not used for longest, down to less than the limit, so that it is rarely needed."""
        if self._size is not None:
            with contextlib.suppress(OSError):  # another process deletes too
                self._size += newest.stat().st_size
            if self._size <= max_bytes:
                return
        files = []
        for path in self._root.glob("*/*/*.safetensors"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                files.append((path == newest, facts.st_mtime_ns, facts.st_size, path))
        self._size = sum(size for _, _, size, _ in files)
        if self._size <= max_bytes:
            return
        for is_newest, _, size, path in sorted(files):
            if is_newest or self._size <= _FULL * max_bytes:
                return
            with contextlib.suppress(OSError):  # on Windows, one that is being read
                path.unlink(missing_ok=True)
                self._size -= size

    def _path(self, content_id: str) -> Path:
        return self.folder / content_id[:2] / f"{content_id}.safetensors"

    def _count(self, *, found: int = 0, stored: int = 0, damaged: int = 0) -> None:
        counts = self.counts
        self.counts = CacheCounts(counts.found + found, counts.stored + stored, counts.damaged + damaged)
