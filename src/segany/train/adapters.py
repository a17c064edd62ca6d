"""Low-rank adapters (Hu et al., LoRA, 2021) on an image encoder, with the peft library."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import torch

from segany.core.errors import TrainingError, check, check_numbers
from segany.core.extras import import_extra
from segany.models.convert import encoder_id
from segany.models.promptable import PromptableModel

Target: TypeAlias = Literal["attention", "all"]

Model = TypeVar("Model", bound=PromptableModel)


@dataclass(frozen=True)
class AdapterConfig:
    """Configuration of the adapters: a linear layer W x becomes W x + (alpha / rank) B A x.

    Attributes:
        rank: number of rows of A and columns of B (LoRA, section 4.1; 8 is in the middle of what table 6 compares).
        alpha: scale of the adapters' output. When alpha is proportional to the rank, the learning rate need not
            be tuned again.
        dropout: dropout probability of the input of A during training.
        target: "attention" adapts the query, key, value and output projections (LoRA, section 4.2); "all" adapts
            the layers of the MLPs too.
        seed: random seed of A. B is initialized to zero, so that training starts from the unchanged model.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target: Target = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self.rank >= 1, f"rank must be at least 1, got {self.rank}.")
        check(self.alpha > 0, f"alpha must be above 0, got {self.alpha}.")
        check(0 <= self.dropout < 1, f"dropout must be in 0..1, 1 excluded, got {self.dropout}.")
        check(self.target in get_args(Target), f"target must be 'attention' or 'all', got {self.target!r}.")


def add_adapters(model: Model, config: AdapterConfig | None = None) -> Model:
    """Add adapters to a model's image encoder and freeze the encoder's own weights.

    The model is changed in place and returned. The prompt encoder and the mask decoder do not change: the task
    freezes or trains them. It also sets the mode of batch norms (TinyViT's), whose running statistics change in
    training mode although their weights are frozen. The model's outputs are unchanged until it is trained. The
    names in its state dict differ until `merge_adapters` restores them.

    Raises:
        MissingExtraError: peft is not installed.
        TrainingError: the model already has adapters.
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
    """Merge the adapters into the weights that they adapt, and remove them.

    Afterwards the model has the layers, the names and the speed of a model without adapters, and no weight of its
    image encoder is frozen. The model is changed in place and returned. A model without adapters does not change.
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
    """A copy of a model with its adapters merged, to be saved for inference. A model without adapters is returned."""
    return merge_adapters(deepcopy(model)) if adapter_layers(model) else model


def adapter_layers(model: PromptableModel) -> dict[str, Any]:
    """The layers of a model's image encoder that have adapters, by name."""
    return {name: layer for name, layer in model.image_encoder.named_modules() if hasattr(layer, "lora_A")}
