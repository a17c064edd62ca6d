"""Exports of the models by name, made once and kept beside their weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from filelock import FileLock, Timeout

from segany.core.errors import ExportError, MissingExtraError, SeganyError
from segany.core.version import __version__
from segany.hub.cache import CACHE_VARIABLE, DISK_ADVICE, cache_directory
from segany.hub.progress import terminal_progress
from segany.models.registry import ModelSpec
from segany.runtime.manifest import read_manifest


def exported_folder(spec: ModelSpec) -> Path:
    """The folder of that model's export, exported now where there is none of this version of segany.

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
        _export(spec, folder)
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


def _export(spec: ModelSpec, folder: Path) -> None:
    import torch

    from segany.export import to_onnx
    from segany.hub.torch_model import load_torch

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    with terminal_progress() as progress:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"waiting for another process that is exporting {spec.name}", 0, None)
            lock.acquire()
    try:
        if _is_usable(folder):  # the other process has made it
            return
        model = load_torch(spec.name, None, "cpu", torch.float32)
        with terminal_progress() as progress:
            progress(f"exporting {spec.name}, once", 0, None)
            to_onnx(model, folder)
    finally:
        lock.release()
