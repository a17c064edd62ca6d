"""Reads checkpoints and converts their keys to those of the official checkpoints, which the modules use.

A checkpoint may have official keys, keys of the transformers library, or keys that an encoder has rules for;
`SamConfig.rename_keys` renames them. Keys that match no rule are reported.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from segany.core.errors import CheckpointError
from segany.models.registry import MODELS, ModelSpec

StateDict = dict[str, Tensor]

MAX_UNPACKED_RATIO, MAX_UNPACKED_BYTES = 4, 1 << 26
"""A checkpoint may unpack to this many times its size, and this many bytes more."""

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts save the state dict."""


def read_checkpoint(path: Path) -> StateDict:
    """Read the state dict of a checkpoint file, with the keys of the file.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated, holds more than tensors, or is not a checkpoint.
    """
    _require_readable(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _require_readable(path: Path) -> None:
    """Report errors of the file system: the readers below report some of them as a missing or damaged file."""
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
    except Exception as error:  # safetensors raises unrelated types for damaged files
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is no readable safetensors file: {reason}. Fetch or copy it again.") from error


def _check_unpacked_size(path: Path) -> None:
    """Raise `CheckpointError` for a zip bomb: PyTorch does not compress, and weights hardly shrink."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_UNPACKED_RATIO * path.stat().st_size + MAX_UNPACKED_BYTES:
        raise CheckpointError(
            f"{path} would unpack to {unpacked:,} bytes, far more than a checkpoint of its size holds. "
            "Fetch or copy it again, from a source you trust."
        )


def _read_pickle(path: Path) -> StateDict:
    try:
        _check_unpacked_size(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors. segany loads tensors only, because anything "
            "else in a checkpoint could run code. Save its state dict alone and load that."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises unrelated types for damaged files
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
    """Rename the keys of a state dict and check that keys and shapes are exactly those of a model.

    Raises:
        CheckpointError: they are not. The message lists missing keys, unexpected keys and wrong shapes, and names the
            registered model that matches, if any.
    """
    state = spec.config.rename_keys(raw)
    problems = _differences(state, _shapes(spec))
    if not problems:
        return state
    alike = matching_specs(raw)
    hint = f" It holds the weights of {alike[0].name!r}: load it as that." if alike else ""
    raise CheckpointError(f"{source} does not fit the model {spec.name!r}.{hint}\n" + "\n".join(problems))


def matching_specs(raw: StateDict) -> list[ModelSpec]:
    """Return the registered models with the same keys and shapes; several if models differ only in their values.

    Those have the same encoder. The search ends with the models of the encoder that matched: building one takes 35 ms.
    """
    first = next((spec for spec in MODELS.values() if _matches(raw, spec)), None)
    if first is None:
        return []
    return [spec for spec in MODELS.values() if spec.config.encoder == first.config.encoder and _matches(raw, spec)]


def _matches(raw: StateDict, spec: ModelSpec) -> bool:
    return not _differences(spec.config.rename_keys(raw), _shapes(spec))


def nearest_spec(raw: StateDict) -> ModelSpec:
    """Return the registered model with the most keys and shapes in common."""

    def shared(spec: ModelSpec) -> int:
        found = {(key, tuple(value.shape)) for key, value in spec.config.rename_keys(raw).items()}
        return len(found & set(_shapes(spec).items()))

    return max(MODELS.values(), key=shared)


@lru_cache
def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in spec.build_empty().state_dict().items()}


def _differences(state: StateDict, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return one line for each kind of difference; empty if there is none."""
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
    """Return the digest of a module's weights; see `weights_digest`."""
    return weights_digest(module.state_dict())


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return a digest of weights, the same on every device and in every run: 16 hexadecimal digits.

    It covers all keys and shapes, and of each tensor up to 127 evenly spaced values as float32. Training changes every
    tensor and therefore the digest, and sampling costs a fraction of hashing all values. A change of a few values may
    not be detected. The dtype is not part of the digest.
    """
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.flatten()[:: max(1, value.numel() // 64)].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
