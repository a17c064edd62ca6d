"""Exported models in ONNX Runtime or OpenVINO, with the interface of `ImageModel` and `ProposingModel`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from segany.core.arrays import PROMPTS_AT_ONCE, BoolArray, FloatArray, IntArray, PixelArray, SizeHW
from segany.core.embedding import Feature, feature_array
from segany.core.errors import ConfigError, ExportError
from segany.imaging.amg import Proposals
from segany.imaging.processor import ImageProcessor
from segany.runtime.manifest import is_export, read_manifest
from segany.runtime.session import Session, open_onnx, open_openvino

__all__ = ["ExportedModel", "OnnxModel", "OpenVinoModel", "RuntimeName", "is_export", "open_export"]

RuntimeName: TypeAlias = Literal["onnx", "openvino", "openvino-bf16"]
"""Runtimes of exported models. "openvino-bf16" runs the encoder in bfloat16: faster on CPUs that support it, with
slightly different masks."""

Arithmetic: TypeAlias = Literal["f32", "bf16"]

PROPOSED_AT_ONCE = 4
"""Batch size of prompts for automatic masks; more do not fit the cache."""

_NO_SIZE = (1, 1)
"""Size of the upscaled logits if they are not needed."""


class ExportedModel:
    """A promptable model in a runtime. It keeps no state, so threads may share it.

    Attributes:
        name, encoder_id, pads_boxes, pred_iou_thresh, stability_score_thresh: those of the exported model.
        processor: preprocesses images and upscales logits.
        has_memory: whether the model supports video; exported models do not.
        manifest: the manifest of the folder.
        folder: the folder.
        runtime, device: the runtime and its device; None for the default device.
        outputs: names of the outputs of the encoder, in order.
    """

    has_memory = False
    runtime: RuntimeName
    device: str | None

    def __init__(self, folder: Path, open_file: Callable[[Path], Session]) -> None:
        """Open a folder; `open_file` opens one of its files in the runtime."""
        manifest = read_manifest(folder)
        manifest.verify(folder)
        self.manifest, self.folder, self._open_file = manifest, folder, open_file
        self.name, self.encoder_id = manifest.model, manifest.encoder_id
        self.pads_boxes, self.pred_iou_thresh = manifest.pads_boxes, manifest.pred_iou_thresh
        self.stability_score_thresh = manifest.stability_score_thresh
        self.outputs = [tensor.name for tensor in manifest.files["encoder"].outputs]
        self._encoder, self._decoder = self.open("encoder"), self.open("decoder")
        self.processor = ImageProcessor(manifest.preprocessing.value())

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied: its sessions belong to this process. Send "
            "segany.ModelRef.of(model) to the other process, and load the model there with its load()."
        )

    def open(self, name: str) -> Session:
        """Open a file of the folder by its name in the manifest, such as `memory_encoder`.

        Raises:
            ExportError: there is no such file, or the runtime cannot run it.
        """
        if name not in self.manifest.files:
            raise ExportError(f"{self.folder} has no {name}: its manifest lists none. Export the model again.")
        return self._open_file(self.folder / self.manifest.files[name].path)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the names and digests of all files."""
        lines = sorted(f"{record.path} {record.sha256} {record.data_sha256}" for record in self.manifest.files.values())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def weights_id(self) -> str:
        """Digest of all files."""
        digests = sorted(record.sha256 for record in self.manifest.files.values())
        return "-".join(digest[:16] for digest in digests)

    @property
    def low_res_size(self) -> int:
        return self.manifest.low_res_size

    def embed(self, images: Sequence[PixelArray]) -> list[tuple[FloatArray, ...]]:
        """Encode uint8 images [H, W, 3] of any sizes to the features of an `Embedding`, float32 [C, h, w] each."""
        results = (self._encoder({"pixels": self.processor.preprocess([image])}) for image in images)
        return [tuple(result[name][0] for name in self.outputs) for result in results]

    def predict_low_res(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None,
        *,
        multimask: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Predict masks for P prompts on one image, in batches.

        Args:
            features: features of an `Embedding`.
            points: float32 [P, N, 2], pixels of the model's input; boxes are two points.
            labels: int64 [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: float32 [P, 4h, 4w], or None if no prompt has a mask.
            multimask: predict three candidates per prompt instead of one.

        Returns:
            Low-res logits float32 [P, M, 4h, 4w] and predicted IoU float32 [P, M].
        """
        candidates = (1, 2, 3) if multimask else (0,)
        low_res, iou = [], []
        together = PROMPTS_AT_ONCE["cpu"]
        for first in range(0, len(points), together):
            piece = slice(first, first + together)
            masks = None if mask_logits is None else mask_logits[piece]
            found = self.decode(features, points[piece], labels[piece], masks, candidates=candidates)
            low_res.append(found["low_res"])
            iou.append(found["iou"])
        return np.concatenate(low_res), np.concatenate(iou)

    def decode(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        mask_logits: FloatArray | None = None,
        has_mask: BoolArray | None = None,
        *,
        candidates: Sequence[int] = (1, 2, 3),
        size_hw: SizeHW = _NO_SIZE,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the decoder once, for a batch of P prompts.

        Args:
            features, points, labels, mask_logits: as for `predict_low_res`.
            has_mask: bool [P], which of the prompts have a mask; by default all if `mask_logits` is given.
            candidates: the candidates to predict: 0 is the single mask, 1 to 3 are the multimask outputs.
            size_hw: size of the image, if the output `mask_logits_at_size` is needed.

        Returns:
            The outputs by name.
        """
        side, count = self.low_res_size, len(points)
        if mask_logits is None:
            mask_logits = np.zeros((count, side, side), dtype=np.float32)
            has_mask = np.zeros(count, dtype=np.bool_)
        elif has_mask is None:
            has_mask = np.ones(count, dtype=np.bool_)
        return self._decoder(
            self._inputs(features)
            | {
                "points": _float32(points),
                "labels": _int64(labels),
                "mask_logits": _float32(mask_logits),
                "has_mask": has_mask,
                "candidates": np.array(candidates, dtype=np.int64),
                "size_hw": np.array(size_hw, dtype=np.int64),
            }
        )

    def propose(
        self,
        features: Sequence[Feature],
        points: FloatArray,
        labels: IntArray,
        min_score: float,
        together: int | None = None,
    ) -> Iterator[Proposals]:
        """Predict masks for many prompts in batches, and yield those with a predicted IoU above `min_score`.

        Prompts are as for `predict_low_res`, with one point and one padding point each, and have three candidates.
        `together` is the batch size.
        """
        together = together or PROPOSED_AT_ONCE
        image = self._shared_image(self._inputs(features))
        for first in range(0, len(points), together):
            piece = slice(first, first + together)
            found = self._proposals({**image, "points": _float32(points[piece]), "labels": _int64(labels[piece])})
            good = found["iou"] > min_score  # [P, M]
            yield Proposals(
                prompts=np.asarray(first + good.nonzero()[0], dtype=np.int64),
                scores=found["iou"][good],
                low_res=found["low_res"][good],
                done=first + len(good),
            )

    def _inputs(self, features: Sequence[Feature]) -> dict[str, FloatArray]:
        """Convert features of an embedding to inputs of the files."""
        arrays = (feature_array(feature) for feature in features)
        return {name: np.ascontiguousarray(array[None]) for name, array in zip(self.outputs, arrays, strict=True)}

    @cached_property
    def _shared_image(self) -> Session:
        return self.open("shared_image")

    @cached_property
    def _proposals(self) -> Session:
        return self.open("proposals")


def _float32(values: npt.ArrayLike) -> FloatArray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _int64(values: npt.ArrayLike) -> IntArray:
    return np.ascontiguousarray(values, dtype=np.int64)


class OnnxModel(ExportedModel):
    """An exported model in ONNX Runtime."""

    def __init__(self, folder: str | Path, device: str | None = None) -> None:
        """Open a folder.

        Args:
            folder: a folder written by `segany export`.
            device: "cpu" or "cuda"; by default the CPU.

        Raises:
            ExportError: the folder is not an export, its files do not match its manifest, or ONNX Runtime cannot run
                them.
            ConfigError: the device is not available.
            MissingExtraError: ONNX Runtime is not installed.
        """
        self.runtime, self.device = "onnx", device
        super().__init__(Path(folder), lambda path: open_onnx(path, device))


class OpenVinoModel(ExportedModel):
    """An exported model in OpenVINO."""

    def __init__(self, folder: str | Path, device: str | None = None, arithmetic: Arithmetic = "f32") -> None:
        """Open a folder.

        Args:
            folder: a folder written by `segany export`.
            device: "cpu" or "gpu"; by default the CPU.
            arithmetic: dtype of the encoder; "bf16" is faster on CPUs that support it, and changes masks slightly.

        Raises:
            ExportError: the folder is not an export, its files do not match its manifest, or OpenVINO cannot run them.
            ConfigError: the device is not available, or `arithmetic` is neither "f32" nor "bf16".
            MissingExtraError: OpenVINO is not installed.
        """
        if arithmetic not in ("f32", "bf16"):
            raise ConfigError(f"arithmetic must be 'f32' or 'bf16', got {arithmetic!r}.")

        def open_file(path: Path) -> Session:
            # A decoder in bfloat16 would save only ten milliseconds and change masks more than the encoder does.
            return open_openvino(path, device, arithmetic if path.stem == "encoder" else "f32")

        self.runtime, self.device = "openvino" if arithmetic == "f32" else "openvino-bf16", device
        super().__init__(Path(folder), open_file)
        if arithmetic != "f32":
            self.encoder_id = f"{self.encoder_id}-{arithmetic}"


def open_export(folder: str | Path, runtime: RuntimeName = "onnx", device: str | None = None) -> ExportedModel:
    """Open an exported folder in a runtime; see `OnnxModel` and `OpenVinoModel` for the errors."""
    if runtime == "onnx":
        return OnnxModel(folder, device)
    if runtime == "openvino":
        return OpenVinoModel(folder, device)
    if runtime == "openvino-bf16":
        return OpenVinoModel(folder, device, arithmetic="bf16")
    raise ConfigError(f"runtime must be 'torch', {', '.join(map(repr, get_args(RuntimeName)))}, got {runtime!r}.")
