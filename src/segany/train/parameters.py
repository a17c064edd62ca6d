"""Which parameters are trained, and how fast each: layer-wise decay of the learning rate, decay of weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from segany.models.image_encoder import ImageEncoder
from segany.models.promptable import PromptableModel

_WITH_MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def freeze_parts(model: PromptableModel, train: Literal["all", "decoder"]) -> None:
    """Take gradients from what training on images does not reach, and for "decoder" from the image encoder too.

    What is frozen already stays frozen, so that adapters may be all that an encoder learns.
    """
    heads, features = _parameters(model.heads()), _parameters(model.feature_parts())
    kept = heads | features if train == "all" else heads - features
    kept -= _parameters(model.unused_on_images())
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


def _parameters(parts: Iterable[nn.Module | nn.Parameter]) -> set[int]:
    """Identities of the parameters of some parts of a model."""
    return {id(x) for part in parts for x in (part.parameters() if isinstance(part, nn.Module) else (part,))}


def parameter_groups(
    model: PromptableModel, *, weight_decay: float, layer_decay: float, encoder_lr_scale: float = 1.0
) -> list[dict[str, object]]:
    """Groups for an optimizer, of all parameters with gradients.

    Args:
        model: any of the families.
        weight_decay: for the matrices of linear layers and convolutions; biases, norms, tables of positions and
            tokens have none.
        layer_decay: factor on the learning rate from each block of the image encoder to the one before. What
            comes before the blocks counts as one more; the neck, and all beyond the encoder, has a factor of 1.
            So have the position tables of Hiera, as in SAM 2's training.
        encoder_lr_scale: factor on the learning rate of the image encoder with its neck.

    Returns:
        Groups with `params`, `lr_scale` and `weight_decay`, the slowest first.
    """
    scales = _lr_scales(model.image_encoder, layer_decay)
    in_encoder = {id(parameter) for parameter in model.image_encoder.parameters()}
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, _WITH_MATRICES)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = weight_decay if id(parameter) in matrices else 0.0
            scale = scales.get(id(parameter), 1.0) * (encoder_lr_scale if id(parameter) in in_encoder else 1.0)
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": groups[scale, decay], "lr_scale": scale, "weight_decay": decay} for scale, decay in sorted(groups)
    ]


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Groups of the parameters that are trained, all at the full learning rate, as for `Task.parameter_groups`.

    Vectors (biases, and the scales of norms) have no weight decay.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    kinds = (
        ([parameter for parameter in trained if parameter.ndim > 1], weight_decay),
        ([parameter for parameter in trained if parameter.ndim <= 1], 0.0),
    )
    return [{"params": some, "lr_scale": 1.0, "weight_decay": decay} for some, decay in kinds if some]


def _lr_scales(encoder: ImageEncoder, layer_decay: float) -> dict[int, float]:
    """Factor on the learning rate by the parameter's identity, for what is not behind the blocks."""
    last, parameters = len(encoder.encoder_blocks()) + 1, dict(encoder.named_parameters())
    return {id(parameters[name]): layer_decay ** (last - depth) for name, depth in encoder.layer_depths().items()}
