"""An exported model as predictors use it: the arrays of `ImageModel` and `ProposingModel`, without PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

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
"""What runs an exported model. The last is OpenVINO with the encoder in bfloat16: faster where the processor has it,
slightly off."""

Arithmetic: TypeAlias = Literal["f32", "bf16"]

PROPOSED_AT_ONCE = 4
"""Prompts decoded together where the image is shared and they are many: more do not fit the cache."""

_NO_SIZE = (1, 1)
"""The size of the image that is asked for where logits of that size are not wanted."""


class ExportedModel:
    """A promptable model in a runtime. It keeps no state, so threads may share one.

    Attributes:
        name, encoder_id, pads_boxes, pred_iou_thresh: as of the model that was exported.
        processor: brings images to the model, and logits to the size of the image.
        has_memory: whether it tracks objects through video; exported models do not.
        manifest: what else is known of it.
        folder: where its files are.
        runtime, device: what runs it, and on what; None is the runtime's choice.
        outputs: names of what the encoder returns, in order.
    """

    has_memory = False
    runtime: RuntimeName
    device: str | None

    def __init__(self, folder: Path, open_file: Callable[[Path], Session]) -> None:
        """Open a folder with what opens one of its files; see the runtimes below."""
        manifest = read_manifest(folder)
        manifest.verify(folder)
        self.manifest, self.folder, self._open_file = manifest, folder, open_file
        self.name, self.encoder_id = manifest.model, manifest.encoder_id
        self.pads_boxes, self.pred_iou_thresh = manifest.pads_boxes, manifest.pred_iou_thresh
        self.outputs = [tensor.name for tensor in manifest.files["encoder"].outputs]
        self._encoder, self._decoder = self.open("encoder"), self.open("decoder")
        self.processor = ImageProcessor(manifest.preprocessing.value())

    def open(self, name: str) -> Session:
        """A file of the folder, by its name in the manifest: `memory_encoder`, for one.

        Raises:
            ExportError: there is none of that name, or the runtime cannot run it.
        """
        if name not in self.manifest.files:
            raise ExportError(f"{self.folder} has no {name}: its manifest lists none. Export the model again.")
        return self._open_file(self.folder / self.manifest.files[name].path)

    @property
    def weights_sha256(self) -> str:
        """The sha256 of the names and digests of all files."""
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
        """uint8 images [H, W, 3] of any sizes to the features of an `Embedding` each: [C, h, w] first."""
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
        """Masks for P prompts on one image, some prompts at a time.

        Args:
            features: of an `Embedding`.
            points: [P, N, 2], pixels of the model's input; boxes are two points.
            labels: [P, N], -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
            mask_logits: [P, 4h, 4w], or None where no prompt has a mask.
            multimask: three candidates a prompt instead of one.

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
        """Run the decoder once, for P prompts.

        Args:
            features, points, labels, mask_logits: as for `predict_low_res`.
            has_mask: [P], which of the prompts have a mask; by default all if there are any.
            candidates: 0 the single mask, 1 to 3 those of an ambiguous prompt.
            size_hw: of the image, where `mask_logits_at_size` is wanted.

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
        """Masks with a predicted IoU above `min_score`, of many prompts, some prompts at a time.

        Prompts are as for `predict_low_res`, a point and a padding point each, and have three candidates each;
        `together` says how many are decoded at once.
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
        """Features of an embedding, as the files take them."""
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
            folder: what `segany export` made.
            device: "cpu", "cuda"; the CPU by default.

        Raises:
            ExportError: the folder is no export, its files are not those of its manifest, or ONNX Runtime
                cannot run them.
            ConfigError: the device is not there.
            MissingExtraError: ONNX Runtime is not installed.
        """
        self.runtime, self.device = "onnx", device
        super().__init__(Path(folder), lambda path: open_onnx(path, device))


class OpenVinoModel(ExportedModel):
    """An exported model in OpenVINO."""

    def __init__(self, folder: str | Path, device: str | None = None, arithmetic: Arithmetic = "f32") -> None:
        """Open a folder.

        Args:
            folder: what `segany export` made.
            device: "cpu", "gpu"; the CPU by default.
            arithmetic: of the encoder; "bf16" is faster where the processor has it, and changes masks slightly.

        Raises:
            ExportError: the folder is no export, its files are not those of its manifest, or OpenVINO
                cannot run them.
            ConfigError: the device is not there, or there is no such arithmetic.
            MissingExtraError: OpenVINO is not installed.
        """
        if arithmetic not in ("f32", "bf16"):
            raise ConfigError(f"arithmetic must be 'f32' or 'bf16', got {arithmetic!r}.")

        def open_file(path: Path) -> Session:
            # A decoder in bfloat16 gains ten milliseconds and costs more of the masks than the encoder does.
            return open_openvino(path, device, arithmetic if path.stem == "encoder" else "f32")

        self.runtime, self.device = "openvino" if arithmetic == "f32" else "openvino-bf16", device
        super().__init__(Path(folder), open_file)
        if arithmetic != "f32":
            self.encoder_id = f"{self.encoder_id}-{arithmetic}"


def open_export(folder: str | Path, runtime: RuntimeName = "onnx", device: str | None = None) -> ExportedModel:
    """Open what `segany export` made, in a runtime; see `OnnxModel` and `OpenVinoModel` for the errors."""
    if runtime == "onnx":
        return OnnxModel(folder, device)
    if runtime == "openvino":
        return OpenVinoModel(folder, device)
    if runtime == "openvino-bf16":
        return OpenVinoModel(folder, device, arithmetic="bf16")
    raise ConfigError(f"runtime must be 'torch', {', '.join(map(repr, get_args(RuntimeName)))}, got {runtime!r}.")
