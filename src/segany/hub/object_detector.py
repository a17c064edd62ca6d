"""`segany.load_object_detector`, which loads a trained object detector from its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.extras import require_torch

if TYPE_CHECKING:
    import torch

    from segany.models.object_detector import ObjectDetector


def load_object_detector(path: str | Path, *, device: str | torch.device | None = None) -> ObjectDetector:
    """Load an object detector that `segany train object_detector` trained.

    Args:
        path: path of its `.safetensors` file.
        device: "cpu", "cuda", "cuda:1" or "mps"; by default CUDA if available, else the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or holds no object detector.
        MissingExtraError: PyTorch is not installed.
        ConfigError: the device is not available.
    """
    require_torch()
    from segany.hub.torch_model import usable_device
    from segany.models.object_detector_file import read_object_detector

    target = usable_device(device)
    return read_object_detector(Path(path)).to(target)
