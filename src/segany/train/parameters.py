"""Frozen parameters, and parameter groups with layer-wise learning rate decay and weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from segany.models.image_encoder import ImageEncoder
from segany.models.promptable import PromptableModel

_WITH_MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def freeze_parts(model: PromptableModel, train: Literal["all", "decoder"]) -> None:
    """Freeze the parameters that training on images does not use, and for "decoder" the image encoder too.

    Parameters that are already frozen stay frozen, such as an image encoder with adapters.
    """
    heads, features = _parameters(model.heads()), _parameters(model.feature_parts())
    kept = heads | features if train == "all" else heads - features
    kept -= _parameters(model.unused_on_images())
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


def _parameters(parts: Iterable[nn.Module | nn.Parameter]) -> set[int]:
    """The `id` of each parameter of some parts of a model."""
    return {id(x) for part in parts for x in (part.parameters() if isinstance(part, nn.Module) else (part,))}


def parameter_groups(
    model: PromptableModel, *, weight_decay: float, layer_decay: float, encoder_lr_scale: float = 1.0
) -> list[dict[str, object]]:
    """Parameter groups for an optimizer, of all parameters that require gradients.

    Args:
        model: a model of any family.
        weight_decay: weight decay of the weights of linear layers and convolutions. Biases, norms, position embeddings
            and tokens have none.
        layer_decay: layer-wise learning rate decay: factor on the learning rate from each block of the image encoder
            to the block before it. The layers before the first block count as one more block. The neck and all parts
            outside the encoder have a factor of 1, and so do Hiera's position embeddings, as in SAM 2's training.
        encoder_lr_scale: factor on the learning rate of the image encoder, including its neck.

    Returns:
        Groups with `params`, `lr_scale` and `weight_decay`, in ascending order of `lr_scale`.
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
    """Parameter groups at the full learning rate, for `Task.parameter_groups`. Frozen parameters are left out.

    Vectors (biases, and the scales of norms) have no weight decay.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    kinds = (
        ([parameter for parameter in trained if parameter.ndim > 1], weight_decay),
        ([parameter for parameter in trained if parameter.ndim <= 1], 0.0),
    )
    return [{"params": some, "lr_scale": 1.0, "weight_decay": decay} for some, decay in kinds if some]


def _lr_scales(encoder: ImageEncoder, layer_decay: float) -> dict[int, float]:
    """Factor on the learning rate by the `id` of a parameter, for the blocks and the layers before them."""
    last, parameters = len(encoder.encoder_blocks()) + 1, dict(encoder.named_parameters())
    return {id(parameters[name]): layer_decay ** (last - depth) for name, depth in encoder.layer_depths().items()}
