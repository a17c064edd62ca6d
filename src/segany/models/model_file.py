"""Model files: safetensors with the model's name and config in the metadata, so that unregistered models load too."""

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
from segany.core.files import check_is_file, path_errors, replacing
from segany.models.configs import config_from_json, config_to_json
from segany.models.promptable import PromptableModel
from segany.models.registry import MODELS, ModelSpec
from segany.models.sam.config import SamConfig

MODEL_KEY = "segany.model"
"""Metadata key of a safetensors file, with the name and config of the model as JSON."""

MAX_NAME = 200
"""Longest name of a model in characters."""


def save_model(model: PromptableModel, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Save a model to a file that `segany.load` can load, atomically and whether or not the model is registered.

    Args:
        model: the model, on any device; weights keep their dtype.
        path: path of a `.safetensors` file.
        notes: additional metadata.

    Raises:
        OutputError: the file could not be written; an existing file is unchanged.
    """
    facts: dict[str, Any] = {"name": model.name, "config": config_to_json(model.config)}
    if model.stability_score_thresh != type(model).stability_score_thresh:
        facts["stability_score_thresh"] = model.stability_score_thresh
    described = json.dumps(facts)
    return write_tensors(path, model.state_dict(), {**(notes or {}), MODEL_KEY: described})


def saved_spec(path: Path) -> ModelSpec | None:
    """Read the model spec from the metadata of a file; None if it has none, as official checkpoints.

    Raises:
        CheckpointError: this version of segany cannot read the metadata.
    """
    facts = _saved_facts(path)
    if facts is None:
        return None
    try:
        name, config = printable_name(facts["name"]), _model_config(facts["config"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_understood(path, error) from error
    if name in MODELS and MODELS[name].config == config:
        return MODELS[name]
    spec = ModelSpec(name=name, title=name, config=config, sources=(), megabytes=0)
    try:
        spec.build_empty()
    except (AssertionError, ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path} describes a model that cannot be built: {reason}. Save the model again."
        ) from error
    return spec


def saved_stability_score_thresh(path: Path) -> float | None:
    """Read the model's own threshold on the stability score of automatic masks; None if the file has none.

    Raises:
        CheckpointError: it is no number in 0..1.
    """
    thresh = (_saved_facts(path) or {}).get("stability_score_thresh")
    if thresh is None:
        return None
    if isinstance(thresh, bool) or not isinstance(thresh, float | int) or not 0 <= thresh <= 1:
        raise _not_understood(path, ConfigError("stability_score_thresh is no number in 0..1"))
    return float(thresh)


def _saved_facts(path: Path) -> dict[str, Any] | None:
    """The description of a model in the metadata of its file; None without one."""
    if path.suffix != ".safetensors":
        return None
    described = read_metadata(path).get(MODEL_KEY)
    if described is None:
        return None
    try:
        facts = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise _not_understood(path, error) from error
    if not isinstance(facts, dict):
        raise _not_understood(path, TypeError("it is no JSON object"))
    return facts


def _not_understood(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} describes its model in a way this version of segany does not understand ({error}). "
        "Update segany, or save the model again."
    )


def printable_name(described: Any) -> str:
    """Check the name of a model in a file, or raise `ConfigError`."""
    if not isinstance(described, str) or not described.isprintable() or not 0 < len(described) <= MAX_NAME:
        raise ConfigError(f"the name of a model has 1 to {MAX_NAME} printable characters")
    return described


def _model_config(described: Any) -> SamConfig:
    config = config_from_json(described)
    if not isinstance(config, SamConfig):
        raise ConfigError(f"{type(config).__name__} is no whole model")
    return config


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file atomically.

    Raises:
        OutputError: as for `segany.core.files.write_file`.
    """
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory, and tensors that are views of a larger storage.
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
            temporary.chmod(mode)  # safetensors creates files that only their owner can read
        except safetensors.SafetensorError as error:
            # safetensors gives the error number of the system only as text.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(*((int(number[1]), os.strerror(int(number[1]))) if number else (str(error),))) from error
    return path


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; empty if it has none.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with path_errors(path, CheckpointError):
        check_is_file(path, CheckpointError)  # reading a pipe may not end
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}. Fetch or copy it again.") from error
