"""Image features for training: computed once, kept on disk, read in every epoch after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from segany.core.arrays import IMAGES_AT_ONCE, FloatArray, PixelArray
from segany.core.embedding import EmbeddingPrecision
from segany.core.embedding_cache import CacheCounts, EmbeddingCache
from segany.core.errors import TrainingError, check
from segany.core.progress import ProgressCallback, report
from segany.data.item import TrainingItem
from segany.imaging.image import content_id
from segany.kernels.processor import TensorProcessor
from segany.models.convert import weights_digest
from segany.models.promptable import PromptableModel

Features: TypeAlias = tuple[FloatArray, ...]
"""Of one image, float32 [C, h, w] each, with the channels of a position together in memory."""


class EmbeddingStore:
    """Features of training items by the image encoder of one model, kept in an `EmbeddingCache`.

    With them, an epoch of training the prompt encoder and the decoder needs no image encoder. A file belongs to an
    item's pixels at the size of training and to the weights that made it: whatever changes finds no file, and is
    computed. So one folder serves any number of models and datasets, and filling it may be stopped and gone on
    with, by several processes at once too.

    Augmentation changes pixels. Choose none that has many outcomes, such as jitter of the scale: every epoch
    would compute everything and keep it. Flipping has two, so features take twice the space and both are there
    after a few epochs. What is random in prompts costs nothing.

    In fp16, an image of 1024 pixels takes 2 MB with SAM and MobileSAM (256 x 64 x 64 numbers) and 8.4 MB
    with SAM 2, whose decoder also uses two finer maps; in fp32 twice that. Features are rounded to
    11 bits in fp16, before they are used for the first time, so that all epochs see the same.

    Args:
        folder: where files are kept; made when the first is written.
        model: with the image encoder, which must not be trained while the store is in use.
        precision: of the numbers on disk.

    Raises:
        ConfigError: there is no such precision.
    """

    def __init__(self, folder: Path, model: PromptableModel, precision: EmbeddingPrecision = "fp16") -> None:
        check(precision in get_args(EmbeddingPrecision), f"precision must be 'fp16' or 'fp32', got {precision!r}.")
        self.model = model
        self._processor = TensorProcessor(model.preprocessing)
        self.precision = precision
        self.cache = EmbeddingCache(
            folder, model.name, _weights_id(model), model.preprocessing, precision=precision, channels_last=True
        )

    @property
    def counts(self) -> CacheCounts:
        """How many features were found, and computed and stored, since the store was opened."""
        return self.cache.counts

    def features(self, item: TrainingItem) -> tuple[Tensor, ...]:
        """The features of an item as `PromptableModel.decode_features` takes them: [C, h, w] each, no gradients.

        They have the model's device and dtype, and lie in memory as the encoder makes them, with the channels
        of a position together. What is not there is computed and kept.

        Raises:
            OutputError: the folder cannot be written.
            TrainingError: the features are not finite, so the weights are broken.
        """
        found = self.cache.find(_content_id(item))
        features = self._compute([item])[0] if found is None else found.features
        return tuple(self._tensor(feature) for feature in features)

    def fill(self, items: Iterable[TrainingItem | None], *, progress: ProgressCallback | None = None) -> CacheCounts:
        """Compute what is not there yet.

        Args:
            items: read one after the other; None, as `make_item` gives for what it leaves out, is passed over.
            progress: told of the items that are done.

        Returns:
            What this call did.

        Raises:
            OutputError: the folder cannot be written. What was computed until then stays.
            TrainingError: features are not finite, so the weights are broken.
        """
        before, done = self.counts, 0
        together = 1 if self.model.device.type == "cpu" else IMAGES_AT_ONCE
        missing: list[TrainingItem] = []

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if count:
                report(progress, "image features", done, None, "images")

        for item in items:
            if item is None:
                continue
            if self.cache.find(_content_id(item)) is not None:
                advance(1)
                continue
            missing.append(item)
            if len(missing) == together:
                advance(len(self._compute(missing)))
                missing = []
        advance(len(self._compute(missing)))
        now = self.counts
        return CacheCounts(now.found - before.found, now.stored - before.stored, now.damaged - before.damaged)

    def _compute(self, items: Sequence[TrainingItem]) -> list[Features]:
        if not items:
            return []
        self.model.image_encoder.eval()  # in training, batch norms would follow these images
        # Whatever precision the training around it has, the same item has the same features.
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            features = self.model.encode_features(self._processor.normalize([item.image for item in items], self.model))
            # [B, C, h, w] with the channels last in memory, which is how the encoder makes them
            batches = [feature.float().cpu().numpy() for feature in features]
        return [self._store(item, tuple(batch[i] for batch in batches)) for i, item in enumerate(items)]

    def _store(self, item: TrainingItem, features: Features) -> Features:
        if self.precision == "fp16":
            with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
                features = tuple(feature.astype(np.float16).astype(np.float32) for feature in features)
        if not all(np.isfinite(feature).all() for feature in features):
            raise TrainingError(
                f"The features of {item.name} are not finite in {self.precision}. "
                "Check the weights of the image encoder, or choose precision fp32."
            )
        height, width = item.image.shape[:2]
        self.cache.store(_content_id(item), features, (height, width))
        return features

    def _tensor(self, feature: FloatArray) -> Tensor:
        # The copy is writable, which torch asks for, and keeps the order in memory.
        return torch.from_numpy(feature.copy(order="K")).to(device=self.model.device, dtype=self.model.dtype)


def _content_id(item: TrainingItem) -> str:
    return content_id(cast(PixelArray, item.image))  # of float32, what counts are the bytes too


def _weights_id(model: PromptableModel) -> str:
    """A digest of all weights that features depend on, as they are now, and of the arithmetic: 16 hexadecimal digits.

    The id that a model carries is from when it was loaded.
    """
    digest = hashlib.sha256()
    for part in model.feature_parts():
        weights = part.state_dict() if isinstance(part, nn.Module) else {"": part}
        digest.update(weights_digest(weights).encode())
    digest.update(str(model.dtype).encode())
    return digest.hexdigest()[:16]
