"""`segany.load`: a model ready to use, by name or from a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from segany.errors import CheckpointError, ConfigError
from segany.hub.progress import terminal_progress
from segany.hub.weights import fetch_weights
from segany.models.convert import StateDict, check_state, encoder_id, matching_spec, nearest_spec, read_checkpoint
from segany.models.promptable import PromptableModel
from segany.models.registry import DEFAULT_MODEL, MODELS, ModelSpec, find_spec

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> PromptableModel:
    """Load a model with its weights.

    Args:
        model: a name from `segany.list_models()`, whose official weights are fetched on first use; or the
            path of a checkpoint, official or in transformers' format, whose tensors say which model it is.
        checkpoint: weights of your own for the model named by `model`.
        device: "cpu", "cuda", "cuda:1", "mps"; by default CUDA where there is any, else the CPU.
        dtype: of weights and arithmetic. Below float32, masks differ slightly.

    Raises:
        UnknownModelError: there is no model of that name.
        CheckpointError: the file is damaged or holds the weights of something else.
        WeightsError: the official weights could not be fetched.
        ConfigError: the device is not there, or `dtype` is no floating-point `torch.dtype`.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"dtype is a floating-point torch.dtype such as torch.float16, not {dtype!r}.")
    target = _device(device)
    if checkpoint is not None:
        spec, path = find_spec(str(model)), Path(checkpoint)
        state = read_checkpoint(path)
    elif _is_path(model):
        path = Path(model)
        state = read_checkpoint(path)
        spec = _recognise(state, path)
    else:
        spec = find_spec(str(model))
        with terminal_progress() as progress:
            path = fetch_weights(spec, progress=progress)
        state = read_checkpoint(path)
    return _assemble(spec, state, path).to(device=target, dtype=dtype)


def _assemble(spec: ModelSpec, state: StateDict, path: Path) -> PromptableModel:
    check_state(state, spec, path)
    model = spec.build_empty()
    model.load_state_dict(state, assign=True)
    model.encoder_id = encoder_id(model.image_encoder)
    return model.float().eval()


def _is_path(model: str | Path) -> bool:
    if isinstance(model, Path):
        return True
    if model in MODELS:
        return False
    looks_like_one = model.endswith(CHECKPOINT_SUFFIXES) or "/" in model or "\\" in model
    return looks_like_one or os.path.isfile(model)  # noqa: PTH113 - Path.is_file raises where a name is too long


def _recognise(state: StateDict, path: Path) -> ModelSpec:
    spec = matching_spec(state)
    if spec is None:
        nearest = nearest_spec(state)
        try:
            check_state(state, nearest, path)
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} fits none of the models. The nearest is {nearest.name!r}:\n{error}"
            ) from None
        raise CheckpointError(f"{path} fits none of the models.")
    return spec


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return target
