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

from segany.core.version import __version__

if TYPE_CHECKING:
    from segany.client import Client
    from segany.core.embedding import Embedding
    from segany.core.errors import (
        CanceledError,
        CheckpointError,
        ConfigError,
        ConflictError,
        DataError,
        EmbeddingError,
        EndOfVideoError,
        ExportError,
        ImageError,
        InstancesError,
        MissingExtraError,
        NotFoundError,
        OutOfMemoryError,
        OutputError,
        PromptError,
        SeganyError,
        StoreError,
        TrainingError,
        UnknownModelError,
        VideoError,
        WeightsError,
    )
    from segany.core.frame_result import FrameResult
    from segany.core.instance import Category, Instance
    from segany.core.instances import Instances
    from segany.core.prediction import MaskPrediction
    from segany.core.preprocessing import Preprocessing
    from segany.core.prompt import Prompt
    from segany.data.formats.coco import from_coco, to_coco
    from segany.data.formats.sa1b import from_sa1b, to_sa1b
    from segany.data.formats.supervision import from_supervision, to_supervision
    from segany.hub.load import load
    from segany.hub.model_ref import ModelRef
    from segany.hub.object_detector import load_object_detector
    from segany.imaging.pixels import PixelOptions
    from segany.imaging.processor import ImageProcessor
    from segany.imaging.visualize.mosaic import draw_instances
    from segany.models.registry import list_models
    from segany.predict.automatic import AutomaticConfig, AutomaticMaskGenerator
    from segany.predict.file_video_session import FileVideoSession
    from segany.predict.image import ImagePredictor
    from segany.predict.live_video_session import LiveVideoSession
    from segany.predict.objects import ObjectPredictor
    from segany.predict.video import VideoPredictor
    from segany.predict.video_config import VideoConfig
    from segany.predict.video_session import VideoSession

_HOMES = {
    "AutomaticConfig": "segany.predict.automatic",
    "AutomaticMaskGenerator": "segany.predict.automatic",
    "CanceledError": "segany.core.errors",
    "Category": "segany.core.instance",
    "CheckpointError": "segany.core.errors",
    "Client": "segany.client",
    "ConfigError": "segany.core.errors",
    "ConflictError": "segany.core.errors",
    "DataError": "segany.core.errors",
    "Embedding": "segany.core.embedding",
    "EmbeddingError": "segany.core.errors",
    "EndOfVideoError": "segany.core.errors",
    "ExportError": "segany.core.errors",
    "FileVideoSession": "segany.predict.file_video_session",
    "FrameResult": "segany.core.frame_result",
    "ImageError": "segany.core.errors",
    "ImagePredictor": "segany.predict.image",
    "ImageProcessor": "segany.imaging.processor",
    "LiveVideoSession": "segany.predict.live_video_session",
    "MaskPrediction": "segany.core.prediction",
    "MissingExtraError": "segany.core.errors",
    "ModelRef": "segany.hub.model_ref",
    "NotFoundError": "segany.core.errors",
    "ObjectPredictor": "segany.predict.objects",
    "OutOfMemoryError": "segany.core.errors",
    "OutputError": "segany.core.errors",
    "PixelOptions": "segany.imaging.pixels",
    "Preprocessing": "segany.core.preprocessing",
    "Prompt": "segany.core.prompt",
    "PromptError": "segany.core.errors",
    "Instance": "segany.core.instance",
    "Instances": "segany.core.instances",
    "InstancesError": "segany.core.errors",
    "SeganyError": "segany.core.errors",
    "StoreError": "segany.core.errors",
    "TrainingError": "segany.core.errors",
    "UnknownModelError": "segany.core.errors",
    "VideoConfig": "segany.predict.video_config",
    "VideoError": "segany.core.errors",
    "VideoPredictor": "segany.predict.video",
    "VideoSession": "segany.predict.video_session",
    "WeightsError": "segany.core.errors",
    "draw_instances": "segany.imaging.visualize.mosaic",
    "from_coco": "segany.data.formats.coco",
    "from_sa1b": "segany.data.formats.sa1b",
    "from_supervision": "segany.data.formats.supervision",
    "list_models": "segany.models.registry",
    "load": "segany.hub.load",
    "load_object_detector": "segany.hub.object_detector",
    "to_coco": "segany.data.formats.coco",
    "to_sa1b": "segany.data.formats.sa1b",
    "to_supervision": "segany.data.formats.supervision",
}

__all__ = [
    "AutomaticConfig",
    "AutomaticMaskGenerator",
    "CanceledError",
    "Category",
    "CheckpointError",
    "Client",
    "ConfigError",
    "ConflictError",
    "DataError",
    "Embedding",
    "EmbeddingError",
    "EndOfVideoError",
    "ExportError",
    "FileVideoSession",
    "FrameResult",
    "ImageError",
    "ImagePredictor",
    "ImageProcessor",
    "Instance",
    "Instances",
    "InstancesError",
    "LiveVideoSession",
    "MaskPrediction",
    "MissingExtraError",
    "ModelRef",
    "NotFoundError",
    "ObjectPredictor",
    "OutOfMemoryError",
    "OutputError",
    "PixelOptions",
    "Preprocessing",
    "Prompt",
    "PromptError",
    "SeganyError",
    "StoreError",
    "TrainingError",
    "UnknownModelError",
    "VideoConfig",
    "VideoError",
    "VideoPredictor",
    "VideoSession",
    "WeightsError",
    "__version__",
    "draw_instances",
    "from_coco",
    "from_sa1b",
    "from_supervision",
    "list_models",
    "load",
    "load_object_detector",
    "to_coco",
    "to_sa1b",
    "to_supervision",
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
