"""The image encoder of SAM, with the constructor of the official code."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from segany.compat.configs import only
from segany.core.errors import check
from segany.kernels import optimize
from segany.models.configs import EMBEDDING_STRIDE
from segany.models.sam import vit
from segany.models.sam.config import VitConfig


class ImageEncoderViT(vit.ImageEncoderVit):
    """The ViT image encoder: pixels [B, 3, S, S], normalized and padded, to [B, C, S / 16, S / 16].

    Attributes:
        img_size: side of the square input in pixels.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = EMBEDDING_STRIDE,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        qkv_bias: bool = True,
        norm_layer: Any = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        global_attn_indexes: tuple[int, ...] = (),
    ) -> None:
        """Build the encoder with random weights.

        Args:
            img_size, embed_dim, depth, num_heads, mlp_ratio, out_chans: as in the official code.
            window_size, global_attn_indexes: side of a window, 0 for global attention in all blocks; and the blocks
                with global attention.
            norm_layer: makes a `nn.LayerNorm`, whose epsilon is used.
            patch_size, in_chans, qkv_bias, act_layer, use_abs_pos, use_rel_pos, rel_pos_zero_init: must have the values
                that the official models have.

        Raises:
            ConfigError: a size does not fit the others, or segany's encoder does not support a value.
        """
        for name, value, allowed in (
            ("patch_size", patch_size, EMBEDDING_STRIDE),
            ("in_chans", in_chans, 3),
            ("qkv_bias", qkv_bias, True),
            ("act_layer", act_layer, nn.GELU),
            ("use_abs_pos", use_abs_pos, True),
            ("use_rel_pos", use_rel_pos, True),
        ):
            only(name, value, allowed)
        del rel_pos_zero_init  # the tables are zero until weights are loaded, whatever it is
        norm = norm_layer(embed_dim)
        check(isinstance(norm, nn.LayerNorm), f"norm_layer must make nn.LayerNorm in segany, got {type(norm)}.")
        check(mlp_ratio == int(mlp_ratio), f"mlp_ratio must be a whole number in segany, got {mlp_ratio}.")
        blocks = tuple(global_attn_indexes) if window_size else tuple(range(depth))
        super().__init__(
            VitConfig(
                width=embed_dim,
                depth=depth,
                heads=num_heads,
                global_blocks=blocks,
                input_size=img_size,
                window_size=window_size or 14,
                mlp_ratio=int(mlp_ratio),
                out_channels=out_chans,
            )
        )
        self.img_size = img_size
        for module in self.blocks:
            block = cast(vit.Block, module)
            block.norm1.eps = block.norm2.eps = norm.eps
            # Attributes that adapters read.
            attention = block.attn
            names: dict[str, Any] = {
                "num_heads": num_heads,
                "scale": (embed_dim // num_heads) ** -0.5,
                "use_rel_pos": True,
            }
            for owner, values in ((attention, names), (block, {"window_size": attention.window_size or 0})):
                for name, value in values.items():
                    setattr(owner, name, value)
        optimize(self)

    def forward(self, x: Tensor, drop_path_scales: Tensor | None = None) -> Tensor:
        """Encode pixels; `drop_path_scales` are those of segany's own encoder."""
        return super().forward(x, drop_path_scales)
