"""segany: segment anything from a click, a box or a rough mask.

import segany

predictor = segany.ImagePredictor(segany.load("mobile_sam"))
embedding = predictor.embed("photo.jpg")
prediction = predictor.predict(embedding, segany.Prompt(points_xy=[[500, 375]]))
mask = prediction.best()[0]  # bool [H, W]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segany.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        EmbeddingError,
        EndOfVideoError,
        ExportError,
        ImageError,
        MissingExtraError,
        OutputError,
        PromptError,
        RecordsError,
        SeganyError,
        TrainingError,
        UnknownModelError,
        VideoError,
        WeightsError,
    )
    from segany.frame_result import FrameResult
    from segany.hub.load import load
    from segany.models.registry import list_models
    from segany.output.records import MaskRecord, MaskRecords
    from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
    from segany.predict.image import ImagePredictor
    from segany.predict.video import VideoConfig, VideoPredictor
    from segany.predict.video_session import VideoSession
    from segany.types import Embedding, MaskPrediction, Preprocessing, Prompt

_HOMES = {
    "AutomaticConfig": "segany.predict.automatic",
    "AutomaticMaskGenerator": "segany.predict.automatic",
    "CheckpointError": "segany.errors",
    "ConfigError": "segany.errors",
    "DataError": "segany.errors",
    "Embedding": "segany.types",
    "EmbeddingError": "segany.errors",
    "EndOfVideoError": "segany.errors",
    "ExportError": "segany.errors",
    "FrameResult": "segany.frame_result",
    "ImageError": "segany.errors",
    "ImagePredictor": "segany.predict.image",
    "MaskPrediction": "segany.types",
    "MaskRecord": "segany.output.records",
    "MaskRecords": "segany.output.records",
    "MissingExtraError": "segany.errors",
    "OutputError": "segany.errors",
    "Preprocessing": "segany.types",
    "Prompt": "segany.types",
    "PromptError": "segany.errors",
    "RecordsError": "segany.errors",
    "SeganyError": "segany.errors",
    "TrainingError": "segany.errors",
    "UnknownModelError": "segany.errors",
    "VideoConfig": "segany.predict.video",
    "VideoError": "segany.errors",
    "VideoPredictor": "segany.predict.video",
    "VideoSession": "segany.predict.video_session",
    "WeightsError": "segany.errors",
    "list_models": "segany.models.registry",
    "load": "segany.hub.load",
}

__all__ = [
    "AutomaticConfig",
    "AutomaticMaskGenerator",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Embedding",
    "EmbeddingError",
    "EndOfVideoError",
    "ExportError",
    "FrameResult",
    "ImageError",
    "ImagePredictor",
    "MaskPrediction",
    "MaskRecord",
    "MaskRecords",
    "MissingExtraError",
    "OutputError",
    "Preprocessing",
    "Prompt",
    "PromptError",
    "RecordsError",
    "SeganyError",
    "TrainingError",
    "UnknownModelError",
    "VideoConfig",
    "VideoError",
    "VideoPredictor",
    "VideoSession",
    "WeightsError",
    "__version__",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use (PEP 562), so that `import segany` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'segany' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
