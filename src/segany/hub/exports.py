"""Exports of the models by name, made once and kept beside their weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from filelock import FileLock

import segany
from segany.errors import MissingExtraError
from segany.hub.cache import cache_directory
from segany.models.registry import ModelSpec
from segany.runtime.manifest import MANIFEST_NAME


def exported_folder(spec: ModelSpec) -> Path:
    """The folder of that model's export, exported now where there is none of this version of segany.

    Raises:
        MissingExtraError: there is none, and PyTorch or the exporter is not installed.
        ExportError, WeightsError, CheckpointError: it could not be exported.
    """
    folder = cache_directory() / "exports" / f"{spec.name}-{segany.__version__}"
    if (folder / MANIFEST_NAME).is_file():
        return folder
    missing = [
        name for name in ("torch", "onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingExtraError(
            f"{spec.name} has to be exported before it runs without PyTorch, and {missing[0]} is not installed. Where "
            f'it is (pip install "segany[export]"), run: segany export {spec.name} --out FOLDER. Then load the folder.'
        )
    from segany.export import to_onnx
    from segany.hub.torch_model import load_torch

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / MANIFEST_NAME).is_file():  # another process may have been faster
            import torch

            to_onnx(load_torch(spec.name, None, "cpu", torch.float32), folder)
    return folder
