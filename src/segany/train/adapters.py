"""Low-rank adapters on an image encoder (Hu et al., LoRA, 2021), by the peft library."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import torch

from segany.core.errors import TrainingError, check
from segany.core.extras import import_extra
from segany.models.convert import encoder_id
from segany.models.promptable import PromptableModel

Target: TypeAlias = Literal["attention", "all"]

Model = TypeVar("Model", bound=PromptableModel)


@dataclass(frozen=True)
class AdapterConfig:
    """How linear layers of an image encoder are adapted: W x becomes W x + (alpha / rank) B A x.

    Attributes:
        rank: rows of A and columns of B (LoRA, section 4.1; 8 is in the middle of what table 6 compares).
        alpha: strength of what is added. Changing it with the rank keeps the learning rate right.
        dropout: share of the numbers that enter A that are set to zero in training.
        target: "attention" adapts the projections into and out of attention (LoRA, section 4.2), "all" the
            layers of the MLPs too.
        seed: of A's random values. B starts as zeros, so that the model starts unchanged.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target: Target = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.rank >= 1, f"rank must be at least 1, got {self.rank}.")
        check(self.alpha > 0, f"alpha must be above 0, got {self.alpha}.")
        check(0 <= self.dropout < 1, f"dropout must be in 0..1, 1 excluded, got {self.dropout}.")
        check(self.target in get_args(Target), f"target must be 'attention' or 'all', got {self.target!r}.")


def add_adapters(model: Model, config: AdapterConfig | None = None) -> Model:
    """Put adapters on a model's image encoder and freeze the encoder's own weights.

    The model is changed in place and returned. Its prompt encoder and decoder are left as they are: whoever
    trains decides about them, and about batch norms (TinyViT's), which move in training mode although their
    weights are frozen. The model gives the same numbers as before until it is trained. Its state dict has
    other names until `merge_adapters` restores them.

    Raises:
        MissingExtraError: peft is not installed.
        TrainingError: the model has adapters already.
    """
    config = config or AdapterConfig()
    peft = import_extra("peft", "Low-rank adapters need peft", "train")
    encoder = model.image_encoder
    if adapter_layers(model):
        raise TrainingError("The model has adapters already. Merge them before adding others.")
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=encoder.adapted_layers(config.target),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        peft.inject_adapter_in_model(lora, encoder)  # freezes whatever is not an adapter
    return model


def merge_adapters(model: Model) -> Model:
    """Fold the adapters into the weights they adapt, so that the model is again what it was before.

    It has the layers, the names and the speed of a model that never had adapters, and all its weights may be
    trained. The model is changed in place and returned; without adapters nothing happens.
    """
    adapted = adapter_layers(model)
    encoder = model.image_encoder
    for name, layer in adapted.items():
        layer.merge(safe_merge=True)
        encoder.set_submodule(name, layer.get_base_layer())
    if adapted:
        encoder.__dict__.pop("peft_config", None)
        encoder.requires_grad_(True)
        model.encoder_id = encoder_id(encoder)
    return model


def merged_copy(model: Model) -> Model:
    """What a training with adapters saves for use: a copy with the adapters merged; without any, the model itself."""
    return merge_adapters(deepcopy(model)) if adapter_layers(model) else model


def adapter_layers(model: PromptableModel) -> dict[str, Any]:
    """The adapted layers of a model by their names in its image encoder; none where there are no adapters."""
    return {name: layer for name, layer in model.image_encoder.named_modules() if hasattr(layer, "lora_A")}
