"""Which parameters are trained, and how fast each: layer-wise decay of the learning rate, decay of weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from segany.models.mobile_sam.tiny_vit import ImageEncoderTinyVit
from segany.models.promptable import PromptableModel
from segany.models.sam.vit import ImageEncoderVit
from segany.models.sam2.fpn import ImageEncoder
from segany.models.sam2.mask_decoder import Sam2MaskDecoder

_BEFORE_BLOCKS = ("patch_embed", "pos_embed")
_WITH_MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def encoder_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The blocks of an image encoder, from the pixels on."""
    if isinstance(encoder, ImageEncoderVit):
        return list(encoder.blocks)
    if isinstance(encoder, ImageEncoder):
        return list(encoder.trunk.blocks)
    if isinstance(encoder, ImageEncoderTinyVit):
        return [block for stage in encoder.layers for block in stage.blocks]  # type: ignore[union-attr]
    raise TypeError(f"{type(encoder).__name__} is no image encoder of segany")


def freeze_parts(model: PromptableModel, train: Literal["all", "decoder"]) -> None:
    """Take gradients from what training on images does not reach, and for "decoder" from the image encoder too.

    What is frozen already stays frozen, so that adapters may be all that an encoder learns.
    """
    prompt_encoder, mask_decoder = model.heads()
    parts = (
        (prompt_encoder, mask_decoder) if train == "decoder" else (prompt_encoder, mask_decoder, model.image_encoder)
    )
    kept = {id(parameter) for part in parts for parameter in part.parameters()}
    if train == "all" and hasattr(model, "no_mem_embed"):
        kept.add(id(model.no_mem_embed))  # the image embedding of SAM 2 has it added
    if isinstance(mask_decoder, Sam2MaskDecoder):
        unreached: list[nn.Module] = [mask_decoder.pred_obj_score_head]  # no image lacks the object asked for
        if train == "decoder":
            unreached += [mask_decoder.conv_s0, mask_decoder.conv_s1]  # their outputs are features of the image
        kept -= {id(parameter) for module in unreached for parameter in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


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


def _lr_scales(encoder: nn.Module, layer_decay: float) -> dict[int, float]:
    """Factor on the learning rate by the parameter's identity, for what is not in the neck."""
    blocks = encoder_blocks(encoder)
    trunk = encoder.trunk if isinstance(encoder, ImageEncoder) else encoder
    depths: dict[int, int] = {}
    for name, parameter in trunk.named_parameters():
        if name.startswith(_BEFORE_BLOCKS) and not (trunk is not encoder and "pos_embed" in name):
            depths[id(parameter)] = 0
    for depth, block in enumerate(blocks, start=1):
        depths.update((id(parameter), depth) for parameter in block.parameters())
    if isinstance(encoder, ImageEncoderTinyVit):
        ends = 0
        for stage in encoder.layers:
            ends += len(stage.blocks)  # type: ignore[arg-type]
            # The step to the next stage is as deep as the block before it.
            depths.update((id(parameter), depths.get(id(parameter), ends)) for parameter in stage.parameters())
    return {key: layer_decay ** (len(blocks) + 1 - depth) for key, depth in depths.items()}
