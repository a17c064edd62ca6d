"""Checkpoints: the training state that a run resumes from, in one file that is replaced atomically, and the models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from segany.core.errors import CheckpointError, TrainingError
from segany.models.convert import weights_digest
from segany.models.model_file import read_metadata, save_model, write_tensors
from segany.models.object_detector import ObjectDetector
from segany.models.object_detector_file import save_object_detector
from segany.models.promptable import PromptableModel

STATE_KEY = "segany.training"
"""Key of the metadata of a state: `TrainingProgress` as JSON, and the digest of the frozen weights."""

STATE_VERSION = 1

_MODULE, _OPTIMIZER = "module/", "optimizer/"


@dataclass
class TrainingProgress:
    """The position of a run in its training, as JSON values.

    It holds no state of random generators, because all random numbers are derived from the seeds of the items.

    Attributes:
        step: number of optimizer steps done.
        given: number of batches that the data loader has yielded, including empty ones.
        batches: state of the data loader, from `Batches.state`.
        best: best validation score; None before the first validation.
        best_step: step of the best validation score.
        since_best: number of validations since the best score.
    """

    step: NonNegativeInt = 0
    given: NonNegativeInt = 0
    batches: dict[str, object] = field(default_factory=dict)
    best: float | None = None
    best_step: NonNegativeInt = 0
    since_best: NonNegativeInt = 0


_PROGRESS = TypeAdapter(TrainingProgress)


def check_finite(module: nn.Module, step: int) -> None:
    """Raise `TrainingError` where trained weights are not finite, so that they are not saved."""
    bad = [name for name, value in _trained(module).items() if not torch.isfinite(value).all()]
    if bad:
        raise TrainingError(
            f"After step {step}, {len(bad)} of the weights are not finite ({bad[0]} is the first). "
            "They were not saved. Resume from the last checkpoint with a lower learning rate, or clip the gradients."
        )


def save_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: TrainingProgress) -> None:
    """Write the trained weights, the buffers, the state of the optimizer and the progress.

    Frozen weights are not written. Their digest is, so that `load_state` can refuse another model.

    Raises:
        OutputError: the file could not be written. An earlier file is not changed.
    """
    tensors = {_MODULE + name: value for name, value in _trained(module).items()}
    for name, values in _optimizer_state(module, optimizer).items():
        tensors |= {f"{_OPTIMIZER}{key}/{name}": value for key, value in values.items()}
    facts = {"version": STATE_VERSION, "frozen": _frozen_digest(module), **asdict(progress)}
    write_tensors(path, tensors, {STATE_KEY: json.dumps(facts)})


def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingProgress:
    """Load the state that `save_state` wrote into a module and its optimizer.

    Raises:
        CheckpointError: the file is damaged, is not a training state, or belongs to another model.
    """
    from safetensors.torch import load_file

    progress, frozen = _facts(path)
    loaded = load_file(path)
    weights = {name.removeprefix(_MODULE): value for name, value in loaded.items() if name.startswith(_MODULE)}
    _check_fits(path, weights, module, frozen)
    module.load_state_dict(weights, strict=False)
    numbers = {name: number for number, name in enumerate(_names(module, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in loaded.items():
        if key.startswith(_OPTIMIZER):
            kind, _, name = key.removeprefix(_OPTIMIZER).partition("/")
            if name not in numbers:
                raise CheckpointError(f"{path} trains {name}, which is frozen now. Resume with the same recipe.")
            state.setdefault(numbers[name], {})[kind] = value
    _check_optimizer(path, state, module, optimizer)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def save_module(path: Path, module: nn.Module, notes: Mapping[str, str]) -> None:
    """Write a module for inference: a promptable model as `segany.load` reads it, an object detector as
    `segany.load_object_detector` does, another module as its state dict.

    Raises:
        OutputError: the file could not be written. An earlier file is not changed.
    """
    if isinstance(module, PromptableModel):
        save_model(module, path, notes)
    elif isinstance(module, ObjectDetector):
        save_object_detector(module, path, notes)
    else:
        write_tensors(path, module.state_dict(), notes)


def _facts(path: Path) -> tuple[TrainingProgress, str]:
    """The progress in a state, and the digest of the frozen weights."""
    described = read_metadata(path).get(STATE_KEY)
    try:
        facts = json.loads(described or "")
        version = facts.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a training state. Choose another folder.") from error
    if version != STATE_VERSION:
        raise CheckpointError(f"{path} was written by another version of segany. Resume with that one.")
    try:
        frozen = str(facts.pop("frozen"))
        return _PROGRESS.validate_python(facts), frozen
    except (KeyError, ValueError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(f"{path} is damaged: {reason}. Choose another folder.") from error


def _check_optimizer(
    path: Path, state: Mapping[int, Mapping[str, Tensor]], module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Raise `CheckpointError` where the state of a parameter has neither its shape nor that of a number."""
    shapes = [tuple(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]]
    for number, name in enumerate(_names(module, optimizer)):
        for kind, value in state.get(number, {}).items():
            if value.ndim and tuple(value.shape) != shapes[number]:
                raise CheckpointError(
                    f"{path} is damaged: {kind} of {name} is {list(value.shape)}, not {list(shapes[number])}. "
                    "Choose another folder."
                )


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name: parameters with gradients, and persistent buffers."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _frozen_digest(module: nn.Module) -> str:
    frozen = {name: value for name, value in module.named_parameters() if not value.requires_grad}
    return weights_digest({name: value.detach() for name, value in frozen.items()})


def _check_fits(path: Path, weights: Mapping[str, Tensor], module: nn.Module, frozen: str) -> None:
    here = {name: tuple(value.shape) for name, value in _trained(module).items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    different = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if different:
        raise CheckpointError(
            f"{path} is the state of another model: {len(different)} of its trained weights differ by name or shape "
            f"({', '.join(different[:3])}). Resume with the model and the recipe of the run, or choose another folder."
        )
    if frozen != _frozen_digest(module):
        raise CheckpointError(
            f"{path} is the state of a training from other weights: the frozen weights differ. "
            "Resume with the model that the run started from, or choose another folder."
        )


def _names(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the optimizer's parameters, in the order of their numbers in its state dict."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    state = optimizer.state_dict()["state"]
    return {name: state[number] for number, name in enumerate(_names(module, optimizer)) if number in state}
