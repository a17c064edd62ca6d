"""An on-disk cache of image features for training: each is computed once, and read in every later epoch."""

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
"""The features of one image, float32 [C, h, w] each, in channels-last memory format."""


class EmbeddingStore:
    """Image features of training items from the frozen image encoder of a model, kept in an `EmbeddingCache`.

    With the store, an epoch that trains the prompt encoder and the mask decoder does not run the image encoder. The
    key of a file is the digest of the item's pixels at training size and of the encoder's weights. One folder can
    therefore hold the features of any number of models and datasets, several processes can fill it at the same time,
    and filling it can be interrupted and resumed.

    Augmentation changes pixels. Do not use an augmentation with many outcomes, such as large-scale jitter: every epoch
    would compute and store new features. Horizontal flips have two outcomes, so that the features take twice the
    space. Random prompts do not affect the features.

    In fp16, an image of 1024 pixels takes 2 MB with SAM and MobileSAM (256 x 64 x 64 values) and 8.4 MB with SAM 2,
    whose decoder also takes two high-resolution feature maps; fp32 takes twice as much. In fp16, features are rounded
    before their first use, so that all epochs see the same values.

    Args:
        folder: the folder of the cache. It is created with the first file.
        model: the model with the image encoder, which must stay frozen while the store is in use.
        precision: dtype of the features on disk.

    Raises:
        ConfigError: `precision` is unknown.
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
        """Number of features that were found, and computed and stored, since the store was opened."""
        return self.cache.counts

    def features(self, item: TrainingItem) -> tuple[Tensor, ...]:
        """The features of an item as `PromptableModel.decode_features` takes them: [C, h, w] each, without gradients.

        They are on the model's device, in its dtype and in channels-last memory format, as the encoder returns them.
        Features that are not in the cache are computed and stored.

        Raises:
            OutputError: the folder cannot be written to.
            TrainingError: the features are not finite, so that the weights must be broken.
        """
        found = self.cache.find(_content_id(item))
        features = self._compute([item])[0] if found is None else found.features
        return tuple(self._tensor(feature) for feature in features)

    def fill(self, items: Iterable[TrainingItem | None], *, progress: ProgressCallback | None = None) -> CacheCounts:
        """Compute and store the features that are not in the cache.

        Args:
            items: the items. None, which `make_item` returns for an image without masks, is skipped.
            progress: called with the number of items that are done, with the unit "images".

        Returns:
            The counts of this call.

        Raises:
            OutputError: the folder cannot be written to. Features stored before stay.
            TrainingError: features are not finite, so that the weights must be broken.
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
        self.model.image_encoder.eval()  # in training mode, batch norms would update their running statistics
        # Autocast of the training loop must not change the cached features.
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            features = self.model.encode_features(self._processor.normalize([item.image for item in items], self.model))
            # [B, C, h, w] in channels-last memory format, as the encoder returns them
            batches = [feature.float().cpu().numpy() for feature in features]
        return [self._store(item, tuple(batch[i] for batch in batches)) for i, item in enumerate(items)]

    def _store(self, item: TrainingItem, features: Features) -> Features:
        if self.precision == "fp16":
            with np.errstate(over="ignore"):  # overflow becomes infinity, which is refused below
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
        # PyTorch needs a writable array. order="K" keeps the memory format.
        return torch.from_numpy(feature.copy(order="K")).to(device=self.model.device, dtype=self.model.dtype)


def _content_id(item: TrainingItem) -> str:
    return content_id(cast(PixelArray, item.image))  # the digest is of the bytes, so that float32 works too


def _weights_id(model: PromptableModel) -> str:
    """A digest of the current weights that features depend on, and of the dtype: 16 hexadecimal digits.

    The model's own `encoder_id` is the digest at loading, which training makes invalid.
    """
    digest = hashlib.sha256()
    for part in model.feature_parts():
        weights = part.state_dict() if isinstance(part, nn.Module) else {"": part}
        digest.update(weights_digest(weights).encode())
    digest.update(str(model.dtype).encode())
    return digest.hexdigest()[:16]
