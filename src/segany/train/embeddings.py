"""Image features on disk: computed once, read in every epoch after."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from segany.core.arrays import IMAGES_AT_ONCE
from segany.core.embedding import EmbeddingPrecision
from segany.core.errors import TrainingError, check
from segany.core.files import write_file
from segany.data.item import TrainingItem
from segany.models.convert import encoder_id
from segany.models.promptable import PromptableModel
from segany.models.sam2.model import Sam2

Maps: TypeAlias = tuple[npt.NDArray[Any], ...]
"""Features as they lie in a file: [h, w, C] each."""

_DTYPES = {"fp16": np.float16, "fp32": np.float32}

_CHECKSUM = "crc32"
_NAME = "name"


@dataclass(frozen=True)
class StoreCounts:
    """What an `EmbeddingStore` has done since it was opened.

    Attributes:
        found: items whose features were on disk.
        computed: items that went through the encoder.
        damaged: of these, those whose file was there but broken.
    """

    found: int = 0
    computed: int = 0
    damaged: int = 0


class EmbeddingStore:
    """Features of training items by the image encoder of one model, kept in a folder.

    With them, an epoch of training the prompt encoder and the decoder needs no image encoder. A file belongs
    to an item's name, its pixels at the size of training, and the weights that made it: whatever changes
    finds no file, and is computed. So one folder serves any number of models and datasets, and filling it
    may be stopped and gone on with, by several processes at once too.

    Augmentation changes pixels. Choose none that has many outcomes, such as jitter of the scale: every epoch
    would compute everything and keep it. Flipping has two, so features take twice the space and both are there
    after a few epochs. What is random in prompts costs nothing.

    In float16, an image of 1024 pixels takes 2 MB with SAM and MobileSAM (256 x 64 x 64 numbers) and 8.4 MB
    with SAM 2, whose decoder also uses two finer maps; in float32 twice that. Features are rounded to
    11 bits in float16, before they are used for the first time, so that all epochs see the same.

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
        self.precision = precision
        self.folder = folder / _features_id(model, precision)
        self.counts = StoreCounts()

    def features(self, item: TrainingItem) -> tuple[Tensor, ...]:
        """The features of an item as `PromptableModel.decode_features` takes them: [C, h, w] each, no gradients.

        They have the model's device and dtype, and lie in memory as the encoder makes them, with the channels
        of a position together. What is not there is computed and kept.

        Raises:
            OutputError: the folder cannot be written.
            TrainingError: the features are not finite, so the weights are broken.
        """
        maps = self._find(item)
        if maps is None:
            (maps,) = self._compute([item])
        return tuple(self._tensor(array) for array in maps)

    def fill(
        self, items: Iterable[TrainingItem | None], *, progress: Callable[[int], None] | None = None
    ) -> StoreCounts:
        """Compute what is not there yet.

        Args:
            items: read one after the other; None, as `make_item` gives for what it leaves out, is passed over.
            progress: told how many items are done, whenever it is more.

        Returns:
            What this call did.

        Raises:
            OutputError: the folder cannot be written. What was computed until then stays.
            TrainingError: features are not finite, so the weights are broken.
        """
        before, done = self.counts, 0
        together = 1 if self.model.device.type == "cpu" else IMAGES_AT_ONCE
        missing: list[TrainingItem] = []

        def report(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None and count:
                progress(done)

        for item in items:
            if item is None:
                continue
            if self._find(item) is not None:
                report(1)
                continue
            missing.append(item)
            if len(missing) == together:
                report(len(self._compute(missing)))
                missing = []
        report(len(self._compute(missing)))
        return StoreCounts(
            *(now - then for now, then in zip(_numbers(self.counts), _numbers(before), strict=True)),
        )

    def _compute(self, items: Sequence[TrainingItem]) -> list[Maps]:
        if not items:
            return []
        self.model.image_encoder.eval()  # in training, batch norms would follow these images
        # Whatever precision the training around it has, the same item has the same features.
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            features = self.model.encode_features(self.model._normalize([item.image for item in items]))
            # [B, h, w, C], which is how the encoder's output lies in memory
            batches = [feature.permute(0, 2, 3, 1).float().cpu().numpy() for feature in features]
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
            rows = [tuple(batch[i].astype(_DTYPES[self.precision]) for batch in batches) for i in range(len(items))]
        for item, maps in zip(items, rows, strict=True):
            self._write(item, maps)
        self.counts = StoreCounts(self.counts.found, self.counts.computed + len(items), self.counts.damaged)
        return rows

    def _write(self, item: TrainingItem, maps: Maps) -> None:
        if not all(np.isfinite(array).all() for array in maps):
            raise TrainingError(
                f"The features of {item.name} are not finite in {self.precision}. "
                "Check the weights of the image encoder, or choose precision fp32."
            )
        arrays = {f"features.{i}": np.ascontiguousarray(array) for i, array in enumerate(maps)}
        metadata = {_NAME: item.name, _CHECKSUM: str(_checksum(maps))}
        write_file(self._path(item), save(arrays, metadata=metadata))

    def _find(self, item: TrainingItem) -> Maps | None:
        """What the item's file holds; None where there is none, or none that is whole."""
        path = self._path(item)
        try:
            with safe_open(path, framework="numpy") as file:
                maps = tuple(file.get_tensor(f"features.{i}") for i in range(len(file.keys())))
                whole = (file.metadata() or {}).get(_CHECKSUM) == str(_checksum(maps))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):
            whole = False
        if not whole:
            self.counts = StoreCounts(self.counts.found, self.counts.computed, self.counts.damaged + 1)
            return None
        self.counts = StoreCounts(self.counts.found + 1, self.counts.computed, self.counts.damaged)
        return maps

    def _path(self, item: TrainingItem) -> Path:
        digest = hashlib.sha256(f"{item.name}\0{item.image.shape}\0".encode())
        digest.update(np.ascontiguousarray(item.image).data)
        key = digest.hexdigest()
        return self.folder / key[:2] / f"{key[:32]}.safetensors"

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device=self.model.device, dtype=self.model.dtype).permute(2, 0, 1)


def _features_id(model: PromptableModel, precision: EmbeddingPrecision) -> str:
    """A digest of all that features depend on but for the image: 16 hexadecimal digits.

    It is made of the weights as they are now. The id that a model carries is from when it was loaded.
    """
    digest = hashlib.sha256(encoder_id(model.image_encoder).encode())
    if isinstance(model, Sam2):  # its features go through two layers of the decoder, and gain an embedding
        decoder = model.sam_mask_decoder
        detail = nn.ModuleList([decoder.conv_s0, decoder.conv_s1])
        digest.update(encoder_id(detail).encode())
        digest.update(model.no_mem_embed.detach().float().cpu().numpy().tobytes())
    digest.update(f"{sorted(asdict(model.preprocessing).items())}{model.dtype}{precision}".encode())
    return digest.hexdigest()[:16]


def _checksum(maps: Maps) -> int:
    """Tells bits that changed on the disk, which the file format does not."""
    value = 0
    for array in maps:
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _numbers(counts: StoreCounts) -> tuple[int, int, int]:
    return counts.found, counts.computed, counts.damaged
