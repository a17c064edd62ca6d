"""Checkpoints to state dicts under our names, which are those of the official checkpoints.

A checkpoint may have official names, those of the transformers library, or those that an encoder has rules for:
`SamConfig.rename_keys` brings them to ours. Whatever no rule covers is reported.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from segany.core.errors import CheckpointError
from segany.models.registry import MODELS, ModelSpec

StateDict = dict[str, Tensor]

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts put the state dict."""


def read_checkpoint(path: Path) -> StateDict:
    """The tensors of a checkpoint file under the names that they have there.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated, holds more than tensors, or is no checkpoint.
    """
    _require_readable(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _require_readable(path: Path) -> None:
    """Say what the disk refuses: the readers below take some refusals for a missing or a damaged file."""
    try:
        if not path.is_file():
            raise CheckpointError(f"There is no checkpoint file at {path}.")
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error


def _read_safetensors(path: Path) -> StateDict:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # as below
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is no readable safetensors file: {reason}. Fetch or copy it again.") from error


def _read_pickle(path: Path) -> StateDict:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors. segany loads tensors only, because anything "
            "else in a checkpoint could run code. Save its state dict alone and load that."
        ) from error
    except Exception as error:  # damaged bytes steer the unpickler into errors of nearly every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no readable checkpoint ({reason}). Fetch or copy it again.") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    ):
        raise CheckpointError(f"{path} holds no state dict (names and tensors), so it is no checkpoint.")
    return dict(loaded)


def fitting_state(raw: StateDict, spec: ModelSpec, source: Path) -> StateDict:
    """The tensors of a checkpoint under our names, where they are exactly those of that model.

    Raises:
        CheckpointError: they are not. The message names what is missing, unexpected or of another shape, and the
            model that they look like.
    """
    state = spec.config.rename_keys(raw)
    problems = _differences(state, _shapes(spec))
    if not problems:
        return state
    alike = matching_specs(raw)
    hint = f" It holds the weights of {alike[0].name!r}: load it as that." if alike else ""
    raise CheckpointError(f"{source} does not fit the model {spec.name!r}.{hint}\n" + "\n".join(problems))


def matching_specs(raw: StateDict) -> list[ModelSpec]:
    """The registered models whose tensors these are, by name and shape: several where only values differ."""
    return [spec for spec in MODELS.values() if not _differences(spec.config.rename_keys(raw), _shapes(spec))]


def nearest_spec(raw: StateDict) -> ModelSpec:
    """The registered model that shares the most tensors with these, by name and shape."""

    def shared(spec: ModelSpec) -> int:
        found = {(key, tuple(value.shape)) for key, value in spec.config.rename_keys(raw).items()}
        return len(found & set(_shapes(spec).items()))

    return max(MODELS.values(), key=shared)


@lru_cache
def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in spec.build_empty().state_dict().items()}


def _differences(state: StateDict, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each kind of difference; none where the state fits."""
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    lines = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": wrong,
    }
    return [f"  {len(keys)} {kind}: {_some(keys)}" for kind, keys in lines.items() if keys]


def _some(names: list[str], shown: int = 4) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f", and {rest} more" if rest > 0 else "")


def encoder_id(module: nn.Module) -> str:
    """The digest of a module's weights; see `weights_digest`."""
    return weights_digest(module.state_dict())


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """A digest of weights, the same on every device and in every run: 16 hexadecimal digits.

    It covers all names and shapes, and evenly spaced values of each tensor: all of them up to 127, else
    64 to 127 of them, as float32. A training moves every tensor and so changes it, at a fraction of the
    cost of hashing everything; an edit of a few values may not. The dtype is no part of it.
    """
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.flatten()[:: max(1, value.numel() // 64)].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
