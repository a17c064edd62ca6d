"""`segany.load`: a model ready to use, by name or from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args, overload

from segany.core.errors import ConfigError
from segany.core.extras import require_torch
from segany.core.progress import ProgressCallback
from segany.models.registry import DEFAULT_MODEL, MODELS, find_spec
from segany.runtime import ExportedModel, RuntimeName, is_export, open_export

if TYPE_CHECKING:
    import torch

    from segany.runtime.torch_model import TorchModel

Runtime: TypeAlias = Literal["torch", RuntimeName]

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")


@overload
def load(
    model: str | Path = ...,
    *,
    runtime: Literal["torch"] | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | None = None,
) -> TorchModel: ...


@overload
def load(
    model: str | Path = ...,
    *,
    runtime: RuntimeName,
    device: str | None = None,
    progress: ProgressCallback | None = None,
) -> ExportedModel: ...


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    runtime: Runtime | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | None = None,
) -> TorchModel | ExportedModel:
    """Load a model with its weights.

    Args:
        model: a name from `segany.list_models()`, whose official weights are fetched on first use; the path of
            a checkpoint, official or in transformers' format, whose tensors say which model it is, or of
            training, which says it itself; or the folder that `segany export` made of a model.
        runtime: what runs it: "torch"; "onnx"; "openvino", or "openvino-bf16", which computes in bfloat16:
            faster where the processor has it, with slightly other masks. By default PyTorch, and ONNX
            Runtime for an exported folder. For a name, all but the first export the model on first use,
            which needs PyTorch and `segany[export]` once, and keep the folder in the cache.
        checkpoint: weights of your own for the model named by `model`; in PyTorch only.
        device: "cpu", "cuda", "cuda:1", "mps"; by default CUDA where there is any, else the CPU. Of ONNX
            Runtime "cpu" or "cuda", of OpenVINO "cpu" or "gpu", by default the CPU.
        dtype: of weights and arithmetic in PyTorch, float32 by default. Below that, masks differ slightly.
        progress: told of the download of weights and of the export; what it raises ends them.

    Raises:
        UnknownModelError: there is no model of that name.
        CheckpointError: the file is damaged or holds the weights of something else.
        WeightsError: the official weights could not be fetched.
        ExportError: the folder is no exported model, is damaged, or cannot be run.
        MissingExtraError: PyTorch or the runtime is not installed.
        ConfigError: the device is not there, an option does not go with the runtime, or `dtype` is no
            floating-point `torch.dtype`.
    """
    runtimes = ("torch", *get_args(RuntimeName))
    if runtime is not None and runtime not in runtimes:
        raise ConfigError(f"runtime must be one of {', '.join(map(repr, runtimes))}, got {runtime!r}.")
    if runtime is None and _is_folder(model):
        runtime = "onnx"
    if runtime is not None and runtime != "torch":
        return _load_export(model, runtime, checkpoint, device, dtype, progress)
    require_torch()
    import torch

    from segany.hub.torch_model import load_torch

    dtype = torch.float32 if dtype is None else dtype
    if checkpoint is not None:
        return load_torch(str(model), Path(checkpoint), device, dtype)
    if _is_path(model):
        return load_torch(None, Path(model), device, dtype)
    return load_torch(str(model), None, device, dtype, progress)


def _load_export(
    model: str | Path,
    runtime: RuntimeName,
    checkpoint: str | Path | None,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    progress: ProgressCallback | None,
) -> ExportedModel:
    if checkpoint is not None or dtype is not None:
        raise ConfigError(
            "checkpoint and dtype are for PyTorch. Export the checkpoint, in the precision you want, with "
            "segany export, and load that folder."
        )
    target = None if device is None else str(device)
    if _is_folder(model):
        return open_export(model, runtime, target)
    if _is_path(model):
        raise ConfigError(
            f"{model} is no folder of an exported model, which {runtime} needs. "
            f"Make one: segany export {model} --out onnx/, and load that."
        )
    from segany.hub.exports import exported_folder

    return open_export(exported_folder(find_spec(str(model)), progress), runtime, target)


def _is_folder(model: str | Path) -> bool:
    return model not in MODELS and is_export(model)


def _is_path(model: str | Path) -> bool:
    if isinstance(model, Path):
        return True
    if model in MODELS:
        return False
    looks_like_one = model.endswith(CHECKPOINT_SUFFIXES) or "/" in model or "\\" in model
    return looks_like_one or os.path.isfile(model)  # noqa: PTH113 - Path.is_file raises where a name is too long
