"""Loading of PyTorch models with their weights."""

from __future__ import annotations

from pathlib import Path

import torch

from segany.core.errors import CheckpointError, ConfigError
from segany.core.files import sha256_of
from segany.core.progress import ProgressCallback
from segany.hub.weights import fetch_weights
from segany.kernels import optimize
from segany.models.convert import StateDict, encoder_id, fitting_state, matching_specs, nearest_spec, read_checkpoint
from segany.models.model_file import saved_spec, saved_stability_score_thresh
from segany.models.object_detector_file import is_object_detector
from segany.models.promptable import PromptableModel
from segany.models.registry import ModelSpec, find_spec
from segany.runtime.torch_model import TorchModel


def load_torch(
    name: str | None,
    path: Path | None,
    device: str | torch.device | None,
    dtype: torch.dtype,
    progress: ProgressCallback | None = None,
) -> TorchModel:
    """Load a model by name, from a checkpoint, or both: then the checkpoint must fit the model. See `segany.load`."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"dtype is a floating-point torch.dtype such as torch.float16, not {dtype!r}.")
    target = usable_device(device)
    spec = None if name is None else find_spec(name)
    if path is None:
        assert spec is not None
        path = fetch_weights(spec, progress=progress)
        source = spec.name
    else:
        source = str(path.absolute())
    raw = read_checkpoint(path)
    thresh = saved_stability_score_thresh(path)
    module = _assemble(spec or saved_spec(path) or _recognize(raw, path), raw, path).to(device=target, dtype=dtype)
    if thresh is not None:
        module.stability_score_thresh = thresh
    return TorchModel(optimize(module) if target.type == "cpu" else module, source=source)


def _assemble(spec: ModelSpec, raw: StateDict, path: Path) -> PromptableModel:
    state = fitting_state(raw, spec, path)
    model = spec.build_empty()
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:  # weights of a dtype without gradients, such as integers
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} holds weights that are no numbers of a model: {reason}") from error
    model.encoder_id = encoder_id(model.image_encoder)
    return model.float().eval()


def _recognize(raw: StateDict, path: Path) -> ModelSpec:
    """Find the registered model of a checkpoint by its keys and shapes."""
    if is_object_detector(path):
        raise CheckpointError(f"{path} holds an object detector, no model. Load it with segany.load_object_detector.")
    specs = matching_specs(raw)
    if len(specs) > 1:  # models that differ in their values only are distinguished by the digest of the file
        digest = sha256_of(path)
        specs.sort(key=lambda spec: digest not in (source.sha256 for source in spec.sources))
    if specs:
        return specs[0]
    nearest = nearest_spec(raw)
    try:
        fitting_state(raw, nearest, path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} fits none of the models. The nearest is {nearest.name!r}:\n{error}") from None
    raise CheckpointError(f"{path} fits none of the models.")


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device, by default CUDA if available, else the CPU.

    Raises:
        ConfigError: there is no such device here, or it cannot hold values, such as "meta".
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(1, device=target).item()  # fails on the meta device, which has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return target
