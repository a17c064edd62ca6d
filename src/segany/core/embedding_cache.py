"""Embeddings kept in a folder: computed once, found by the content of the image and by all that made them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segany.core.arrays import FloatArray, SizeHW
from segany.core.embedding import Embedding, EmbeddingPrecision, write_embedding
from segany.core.errors import EmbeddingError
from segany.core.preprocessing import Preprocessing

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheCounts:
    """What an `EmbeddingCache` has done since it was opened.

    Attributes:
        found: images whose embedding was in the folder.
        stored: images whose embedding was written.
        damaged: images whose file was there but broken.
    """

    found: int = 0
    stored: int = 0
    damaged: int = 0


class EmbeddingCache:
    """The embeddings of one image encoder in a folder.

    A file is `FOLDER/<encoder>/<image>.safetensors`, an `Embedding` as `Embedding.load` reads it. `<image>` is the
    image's `content_id`; `<encoder>` is a digest of the model's name, its encoder id, its preprocessing, and the form
    of the file. So one folder serves any number of models and datasets, whatever changes finds no file, and several
    processes may fill it at once. Files are written whole or not at all. A damaged one counts as missing, with a
    warning in the log, and is replaced.

    Attributes:
        folder: of this encoder's files; made when the first is written.
        counts: what was found and stored so far.
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
    ) -> None:
        """Open the cache of an encoder.

        Args:
            folder: of all encoders.
            model: name of the model.
            encoder_id: digest of all weights that features depend on.
            preprocessing: of the model.
            precision: of the numbers in files; "fp16" rounds them.
            channels_last: whether features are stored as [h, w, C] instead of [C, h, w], and so lie in memory.
        """
        self._model, self._encoder_id, self._preprocessing = model, encoder_id, preprocessing
        self._precision: EmbeddingPrecision = precision
        self._channels_last = channels_last
        facts = [model, encoder_id, asdict(preprocessing), precision, channels_last]
        self.folder = folder / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self.counts = CacheCounts()

    def find(self, content_id: str) -> Embedding | None:
        """The embedding of an image; None where there is none, or none that is whole."""
        path = self._path(content_id)
        if not path.exists():
            return None
        try:
            embedding = Embedding.load(path)
            embedding.check_model(self._model, self._encoder_id, self._preprocessing)
        except EmbeddingError as error:
            _logger.warning("A cached embedding is computed again: %s", error)
            self._count(damaged=1)
            return None
        self._count(found=1)
        return embedding

    def store(self, content_id: str, features: Sequence[FloatArray], size_hw: SizeHW) -> Path:
        """Write the features of an image, [C, h, w] each. Returns the path.

        Args:
            content_id: of the image.
            features: what the encoder made of it.
            size_hw: of the image in pixels.

        Raises:
            EmbeddingError: a value is too large for float16, and `precision` is "fp16".
            OutputError: there is no space, no permission, or no such place.
        """
        embedding = Embedding(tuple(features), size_hw, self._preprocessing, self._model, self._encoder_id, content_id)
        path = write_embedding(embedding, self._path(content_id), self._precision, channels_last=self._channels_last)
        self._count(stored=1)
        return path

    def _path(self, content_id: str) -> Path:
        return self.folder / content_id[:2] / f"{content_id}.safetensors"

    def _count(self, *, found: int = 0, stored: int = 0, damaged: int = 0) -> None:
        counts = self.counts
        self.counts = CacheCounts(counts.found + found, counts.stored + stored, counts.damaged + damaged)
