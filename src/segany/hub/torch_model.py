"""A model with its weights in PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from segany.core.errors import CheckpointError, ConfigError
from segany.core.progress import ProgressCallback
from segany.hub.weights import fetch_weights
from segany.models.convert import StateDict, check_state, encoder_id, matching_spec, nearest_spec, read_checkpoint
from segany.models.model_file import saved_spec
from segany.models.promptable import PromptableModel
from segany.models.registry import ModelSpec, find_spec


def load_torch(
    name: str | None,
    path: Path | None,
    device: str | torch.device | None,
    dtype: torch.dtype,
    progress: ProgressCallback | None = None,
) -> PromptableModel:
    """A model by name, from a checkpoint, or both: then the checkpoint must be of that model. See `segany.load`."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"dtype is a floating-point torch.dtype such as torch.float16, not {dtype!r}.")
    target = _device(device)
    spec = None if name is None else find_spec(name)
    if path is None:
        assert spec is not None
        path = fetch_weights(spec, progress=progress)
    state = read_checkpoint(path)
    return _assemble(spec or saved_spec(path) or _recognize(state, path), state, path).to(device=target, dtype=dtype)


def _assemble(spec: ModelSpec, state: StateDict, path: Path) -> PromptableModel:
    check_state(state, spec, path)
    model = spec.build_empty()
    model.load_state_dict(state, assign=True)
    model.encoder_id = encoder_id(model.image_encoder)
    return model.float().eval()


def _recognize(state: StateDict, path: Path) -> ModelSpec:
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
