"""Weight initialization for training from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import init

from segany.models.promptable import PromptableModel
from segany.nn.positions import RandomFourierPositions

_SPREAD = 0.02
"""Standard deviation of the absolute position embeddings of an image encoder."""

_SPREAD_TABLES = ("pos_embed", "pos_embed_window")


def initialize(model: PromptableModel, seed: int) -> None:
    """Initialize the weights of a new model for training from scratch, deterministically for a seed.

    Linear layers of the image encoder and its patch embedding are Xavier-uniform, as in the code of MAE; everything
    else has PyTorch's default initialization. Norms stay at one and relative position embeddings at zero, as they were
    built. The global random state does not change.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill_like_pytorch(module, generator)
        for module in model.image_encoder.modules():
            if isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    init.zeros_(module.bias)
        patches = getattr(getattr(model.image_encoder, "patch_embed", None), "proj", None)
        if isinstance(patches, nn.Conv2d):  # in a plain ViT it is a linear layer on the pixels of a patch
            init.xavier_uniform_(patches.weight.flatten(1), generator=generator)
        for name, parameter in model.image_encoder.named_parameters():
            if name.rpartition(".")[2] in _SPREAD_TABLES:
                init.trunc_normal_(parameter, std=_SPREAD, a=-2 * _SPREAD, b=2 * _SPREAD, generator=generator)


def _fill_like_pytorch(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        if module.bias is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.Embedding):
        init.normal_(module.weight, generator=generator)
    elif isinstance(module, RandomFourierPositions):
        init.normal_(module.positional_encoding_gaussian_matrix, generator=generator)
