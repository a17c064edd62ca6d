"""The image encoder of MobileSAM, with the constructor of the official code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from segany.compat.configs import only
from segany.core.errors import check
from segany.kernels import optimize
from segany.models.mobile_sam import tiny_vit
from segany.models.mobile_sam.config import TinyVitConfig

_DEFAULTS = TinyVitConfig()


class TinyViT(tiny_vit.ImageEncoderTinyVit):
    """The TinyViT image encoder: pixels [B, 3, S, S], normalized and padded, to [B, 256, S / 16, S / 16].

    Attributes:
        img_size: side of the square input in pixels.
        norm_head, head: the classifier in official checkpoints, which is not used.
    """

    def __init__(
        self,
        img_size: int = _DEFAULTS.input_size,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = _DEFAULTS.widths,
        depths: Sequence[int] = _DEFAULTS.depths,
        num_heads: Sequence[int] = _DEFAULTS.heads,
        window_sizes: Sequence[int] = _DEFAULTS.window_sizes,
        mlp_ratio: float = _DEFAULTS.mlp_ratio,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        use_checkpoint: bool = False,
        mbconv_expand_ratio: float = _DEFAULTS.conv_expansion,
        local_conv_size: int = 3,
        layer_lr_decay: float = 1.0,
    ) -> None:
        """Build the encoder with random weights. The defaults are those of MobileSAM.

        Args:
            img_size, embed_dims, depths, num_heads, window_sizes, mlp_ratio, mbconv_expand_ratio: as in the official
                code.
            num_classes: classes of the unused classifier.
            layer_lr_decay: ignored.
            in_chans, drop_rate, drop_path_rate, use_checkpoint, local_conv_size: must have their defaults.

        Raises:
            ConfigError: a size does not fit the others, or segany's encoder does not support a value.
        """
        del layer_lr_decay
        for name, value, allowed in (
            ("in_chans", in_chans, 3),
            ("drop_rate", drop_rate, 0.0),
            ("drop_path_rate", drop_path_rate, 0.0),
            ("use_checkpoint", use_checkpoint, False),
            ("local_conv_size", local_conv_size, 3),
        ):
            only(name, value, allowed)
        for name, ratio in (("mlp_ratio", mlp_ratio), ("mbconv_expand_ratio", mbconv_expand_ratio)):
            check(ratio == int(ratio), f"{name} must be a whole number in segany, got {ratio}.")
        widths, depth, heads, windows = (
            cast(Any, tuple(values)) for values in (embed_dims, depths, num_heads, window_sizes)
        )
        super().__init__(
            TinyVitConfig(
                input_size=img_size,
                widths=widths,
                depths=depth,
                heads=heads,
                window_sizes=windows,
                mlp_ratio=int(mlp_ratio),
                conv_expansion=int(mbconv_expand_ratio),
            )
        )
        self.img_size = img_size
        self.norm_head = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes) if num_classes > 0 else nn.Identity()
        optimize(self)
