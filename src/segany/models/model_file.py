"""Files of tensors that say what they are: a model with its architecture, so that one in no table loads too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from segany.core.errors import CheckpointError, ConfigError
from segany.core.files import replacing
from segany.models.configs import config_from_json, config_to_json
from segany.models.promptable import PromptableModel
from segany.models.registry import MODELS, ModelSpec
from segany.models.sam.config import SamConfig

MODEL_KEY = "segany.model"
"""Of the metadata of a safetensors file: JSON with the name and the architecture of its model."""


def save_model(model: PromptableModel, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write a model as a file that `segany.load` takes by its path, whether or not its architecture has a name.

    Args:
        model: any model; its weights are written as they are, on whatever device.
        path: of a `.safetensors` file.
        notes: more metadata.

    Raises:
        OutputError: the file could not be written; one that was there before is whole.
    """
    described = json.dumps({"name": model.name, "config": config_to_json(model.config)})
    return write_tensors(path, model.state_dict(), {**(notes or {}), MODEL_KEY: described})


def saved_spec(path: Path) -> ModelSpec | None:
    """The model that a file says it holds, or None where it says nothing: official checkpoints do not.

    Raises:
        CheckpointError: what it says makes no sense to this version of segany.
    """
    if path.suffix != ".safetensors":
        return None
    described = read_metadata(path).get(MODEL_KEY)
    if described is None:
        return None
    try:
        facts = json.loads(described)
        name, config = str(facts["name"]), _model_config(facts["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} describes its model in a way this version of segany does not understand ({error}). "
            "Update segany, or save the model again."
        ) from error
    if name in MODELS and MODELS[name].config == config:
        return MODELS[name]
    return ModelSpec(name=name, title=name, config=config, sources=(), megabytes=0)


def _model_config(described: Any) -> SamConfig:
    config = config_from_json(described)
    if not isinstance(config, SamConfig):
        raise ConfigError(f"{type(config).__name__} is no whole model")
    return config


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file, whole or not at all; one that was there before stays until the new one is complete.

    Raises:
        OutputError: as for `segany.core.files.write_file`.
    """
    from safetensors.torch import save_file

    # Tensors that share memory are refused, and each is written once only where it is a whole.
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in whole.items():
        if tensor.numel() and (tensor.data_ptr() in seen or tensor.untyped_storage().nbytes() != tensor.nbytes):
            whole[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(whole, temporary, {"format": "pt", **metadata})
            temporary.chmod(mode)  # the library makes files that only their owner may read
        except safetensors.SafetensorError as error:
            # The library says what the disk said in words only.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(*((int(number[1]), os.strerror(int(number[1]))) if number else (str(error),))) from error
    return path


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty where it has none.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}. Fetch or copy it again.") from error
