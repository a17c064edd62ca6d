"""The two-way transformer, with the constructors and signatures of the official code."""

from __future__ import annotations

from torch import Tensor, nn

from segany.compat.segment_anything.modeling.common import MLPBlock
from segany.kernels.decoder import FastAttention
from segany.models.sam import two_way_transformer
from segany.models.sam.config import DecoderConfig
from segany.models.sam.two_way_transformer import ImageTokens


class Attention(FastAttention):
    """Multi-head attention with an optional downscaling of the inner width."""

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__(embedding_dim, num_heads, embedding_dim // downsample_rate)
        self.embedding_dim, self.internal_dim, self.num_heads = (
            embedding_dim,
            embedding_dim // downsample_rate,
            num_heads,
        )


class TwoWayAttentionBlock(two_way_transformer.TwoWayBlock):
    """Self-attention of tokens, cross-attention to the image, MLP, cross-attention from the image to the tokens."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
    ) -> None:
        inner = embedding_dim // attention_downsample_rate
        config = DecoderConfig(heads=num_heads, mlp_width=mlp_dim, cross_attention_width=inner)
        super().__init__(config, embedding_dim, is_first=skip_first_layer_pe)
        self.skip_first_layer_pe = skip_first_layer_pe
        self.self_attn = Attention(embedding_dim, num_heads)
        self.cross_attn_token_to_image = Attention(embedding_dim, num_heads, attention_downsample_rate)
        self.cross_attn_image_to_token = Attention(embedding_dim, num_heads, attention_downsample_rate)
        self.mlp = MLPBlock(embedding_dim, mlp_dim, activation)


class TwoWayTransformer(two_way_transformer.TwoWayTransformer):
    """Two-way blocks, then a final cross-attention from the tokens to the image."""

    def __init__(
        self,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
    ) -> None:
        inner = embedding_dim // attention_downsample_rate
        super().__init__(
            DecoderConfig(depth=depth, heads=num_heads, mlp_width=mlp_dim, cross_attention_width=inner), embedding_dim
        )
        self.depth, self.embedding_dim, self.num_heads, self.mlp_dim = depth, embedding_dim, num_heads, mlp_dim
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                activation,
                attention_downsample_rate,
                skip_first_layer_pe=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, attention_downsample_rate)

    def forward(  # type: ignore[override]  # the signature of the official code
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Transform the tokens and the image.

        Args:
            image_embedding: [1 or P, C, h, w], with the dense prompt embedding added.
            image_pe: position encoding [1 or P, C, h, w].
            point_embedding: tokens [P, n, C].

        Returns:
            Tokens [P, n, C] and image tokens [P, h * w, C].
        """
        image, positions = (x.flatten(2).transpose(1, 2) for x in (image_embedding, image_pe))
        return super().forward(point_embedding, ImageTokens(image, positions))
