"""Exports of the models by name, made once and kept beside their weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from segany.core.errors import ExportError, MissingExtraError, SeganyError
from segany.core.progress import ProgressCallback
from segany.core.version import __version__
from segany.hub.cache import CACHE_VARIABLE, DISK_ADVICE, cache_directory, locked
from segany.models.registry import ModelSpec
from segany.runtime.manifest import read_manifest


def exported_folder(spec: ModelSpec, progress: ProgressCallback | None = None) -> Path:
    """The folder of that model's export, exported now where there is none of this version of segany.

    `progress` is told of the download of the weights and of the export.

    Raises:
        MissingExtraError: there is none, and PyTorch or the exporter is not installed.
        ExportError: it could not be exported, or there is no space or no permission to keep it.
        WeightsError, CheckpointError: its weights are not to be had.
    """
    folder = cache_directory() / "exports" / f"{spec.name}-{__version__}"
    if _is_usable(folder):
        return folder
    missing = [
        name for name in ("torch", "onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingExtraError(
            f"{spec.name} has to be exported before it runs without PyTorch, and {missing[0]} is not installed. Where "
            f'it is (pip install "segany[export]"), run: segany export {spec.name} --out FOLDER. Then load the folder.'
        )
    try:
        _export(spec, folder, progress)
    except SeganyError:
        raise
    except OSError as error:
        advice = DISK_ADVICE.get(error.errno or 0, f"{error.strerror or error}. Put that right")
        raise ExportError(
            f"The export of {spec.name} cannot be kept at {folder}. {advice}, "
            f"or set {CACHE_VARIABLE} to another directory."
        ) from error
    return folder


def _is_usable(folder: Path) -> bool:
    """Whether this segany can read what is there: while it was developed, what an export holds has changed."""
    try:
        read_manifest(folder)
    except ExportError:
        return False
    return True


def _export(spec: ModelSpec, folder: Path, progress: ProgressCallback | None) -> None:
    import torch

    from segany.export import to_onnx
    from segany.hub.torch_model import load_torch

    with locked(folder, f"exporting {spec.name}", progress):
        if not _is_usable(folder):  # another process may have been faster
            model = load_torch(spec.name, None, "cpu", torch.float32, progress=progress)
            to_onnx(model, folder, progress=progress)
