from __future__ import annotations

import subprocess
import sys

import pytest

import segany

PUBLIC = [
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
"""Adding a name is a decision, removing one breaks somebody: both change this list on purpose."""


def test_all_names_the_public_api() -> None:
    assert segany.__all__ == PUBLIC
    assert dir(segany) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there(name: str) -> None:
    assert getattr(segany, name) is not None


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = segany.nonsense


@pytest.mark.parametrize("error", [name for name in PUBLIC if name.endswith("Error") and name != "SeganyError"])
def test_every_error_is_a_segany_error(error: str) -> None:
    assert issubclass(getattr(segany, error), segany.SeganyError)


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_brings_in_nothing_heavy() -> None:
    code = "import sys, segany; print([m for m in ('torch', 'numpy', 'PIL', 'httpx', 'rich') if m in sys.modules])"
    assert in_a_new_process(code).strip() == "[]"


def test_values_and_images_need_no_torch() -> None:
    code = (
        "import sys, segany, numpy as np; segany.Prompt(points_xy=[[1, 2]]);"
        "from segany.imaging.image import read_image; read_image(np.zeros((2, 2), np.uint8));"
        "print('torch' in sys.modules)"
    )
    assert in_a_new_process(code).strip() == "False"


def test_import_has_no_side_effects() -> None:
    code = (
        "import os, warnings; before = dict(os.environ), list(warnings.filters);"
        "import segany; print(before == (dict(os.environ), list(warnings.filters)))"
    )
    assert in_a_new_process(code).strip() == "True"
