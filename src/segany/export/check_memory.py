"""Whether the exported files of SAM 2's memory compute what PyTorch computes."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segany.core.arrays import PixelArray
from segany.core.errors import ExportError
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import FrameFeatures, ObjectMemory
from segany.runtime.manifest import Manifest, MemoryRecord
from segany.runtime.model import ExportedModel
from segany.runtime.torch_model import TorchModel

MAX_ERROR = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-1}
"""What `MemoryRecord.error` may be. Seeded small models reach 5e-7 in fp32 and 5e-3 in int8."""

_OBJECTS = ((0.32, 0.3), (0.66, 0.64), (0.3, 0.72))
"""Where on the image, as shares of its sides, objects are prompted."""

_CASES = ((1, 0), (3, 2))
"""Memories and pointers that a frame attends to."""


def compare_memory(torch_model: TorchModel, exported: ExportedModel, image: PixelArray) -> list[MemoryRecord]:
    """Run the files of the memory on what PyTorch makes of an image, uint8 [H, W, 3], and compare what they make."""
    model = cast(Sam2, torch_model.module)
    with torch.inference_mode():
        pixels = torch_model.processor.tensor([image], model)
        frame, embedding = model.encode_frame(pixels), model.encode_features(pixels)[0]
        masks, scores, pointers = _objects(model, frame)
        memories = torch.cat(
            [
                model.encode_memory(frame, masks[i : i + 1], scores[i : i + 1], binarize=i == 1)
                for i in range(len(masks))
            ]
        )
        encoded = exported.open("memory_encoder")(
            {
                "image_embedding": embedding.numpy(),
                "low_res": masks.numpy(),
                "object_scores": scores.numpy(),
                "prompted": np.arange(len(masks)) == 1,
            }
        )["memory"]
        records = [MemoryRecord(file="memory_encoder", error=_error(encoded, memories))]
        attention, errors = exported.open("memory_attention"), []
        for count, pointed in _CASES:
            slots, times = tuple(range(count)), tuple(0.1 * i for i in range(pointed))
            memory = ObjectMemory(tuple(memories[:count]), slots, tuple(pointers[:pointed]), times)
            conditioned = attention(
                {
                    "image_embedding": embedding.numpy(),
                    "memories": memories[:count].numpy(),
                    "slots": np.array(slots),
                    "pointers": pointers[:pointed].numpy(),
                    "times": np.array(times, dtype=np.float32),
                }
            )["conditioned"]
            errors.append(_error(conditioned, model.attend_memory(frame, [memory])))
    return [*records, MemoryRecord(file="memory_attention", error=max(errors))]


def _objects(model: Sam2, frame: FrameFeatures) -> tuple[Tensor, Tensor, Tensor]:
    """Low-res logits [O, 4h, 4w], logits of being visible [O], the last one is hidden, and pointers [O, C]."""
    points = torch.tensor(_OBJECTS)[:, None] * model.preprocessing.input_size
    found = model.decode_frame(frame, points=points, labels=torch.ones(len(_OBJECTS), 1, dtype=torch.int64)).best()
    return found.low_res[:, 0], torch.linspace(1, -1, len(_OBJECTS)), found.pointers[:, 0]


def _error(ours: npt.NDArray[Any], theirs: Tensor) -> float:
    """Root mean square of the difference, over that of what PyTorch computes; infinite where even shapes differ."""
    expected = theirs.numpy()
    if ours.shape != expected.shape:
        return math.inf
    error = float(np.sqrt(np.square(ours - expected).mean() / np.square(expected).mean()))
    return error if np.isfinite(error) else math.inf


def judge_memory(manifest: Manifest) -> None:
    """Raise `ExportError` where the memory is not PyTorch's."""
    for record in manifest.memory or []:
        if record.error > MAX_ERROR[manifest.precision]:
            raise ExportError(
                f"The export is refused: {record.file} computes something else than PyTorch, its relative error is "
                f"{record.error:.2g} in {manifest.precision}. Export again, or choose another precision."
            )
