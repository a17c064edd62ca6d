"""The two-way transformer: cross-attention between prompt tokens and image tokens in both directions (SAM, A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from segany.models.sam.config import DecoderConfig
from segany.nn.attention import merge_heads, split_heads
from segany.nn.layers import MLP, FeedForward
from segany.nn.replaced import is_plain, is_unmodified


class HighResFeatures(NamedTuple):
    """High-resolution features of an image in the order of its tokens (SAM 2, section 4).

    Attributes:
        stride8: [1 or P, T, 4, C / 4], 2 x 2 positions per token.
        stride4: [1 or P, T, 4, 4, C / 8], 2 x 2 positions per position of `stride8`.
    """

    stride8: Tensor
    stride4: Tensor


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """The image input of the mask decoder.

    Attributes:
        tokens: image embedding plus dense prompt embedding, [1, T, C] shared by all prompts, or [P, T, C].
        positions: position encoding [T, C].
        high_res_features: added to the upscaled tokens by `MaskUpscaling`; None if the model has none.
    """

    tokens: Tensor
    positions: Tensor
    high_res_features: HighResFeatures | None = None


class Attention(nn.Module):
    """Multi-head attention with an optional downscaling of the inner width.

    `forward` is plain attention. `tokens_to_image` and `image_to_tokens` compute the same for n prompt tokens and T
    image tokens, T >> n, where the projection of the image dominates the cost. They use associativity,
    (x W_q) (y W_k)' = ((x W_q) W_k') y', so that the weights multiply the few prompt tokens and the image tokens are
    not projected. That is cheaper for small n. With replaced or hooked layers, they are plain attention.
    """

    def __init__(self, width: int, heads: int, inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or width
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from query [P, n, C] to key and value [P, m, C]: [P, n, C]. A batch axis of 1 is broadcast."""
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.out_proj(merge_heads(weights @ v))

    def tokens_to_image(self, tokens: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Attend from prompt tokens [P, n, C] to image tokens [1 or P, T, C]: [P, n, C]."""
        if not self._regroups(tokens.shape[1]):
            return self(q=tokens, k=image + positions, v=image)
        q = self._scaled_heads(self.q_proj(tokens))  # [P, heads, n, D]
        # The bias of the keys adds a constant to all scores of a query, to which softmax is invariant.
        q = (q @ self._by_head(self.k_proj.weight)).flatten(1, 2)  # [P, heads * n, C]
        scores = self.product(image + positions, q).transpose(-1, -2)  # [P, heads * n, T]
        attended = torch.softmax(scores.contiguous(), dim=-1) @ image  # [P, heads * n, C]
        v_weight = self._by_head(self.v_proj.weight).transpose(-1, -2)  # [heads, C, D]
        attended = attended.unflatten(1, (self.heads, -1)) @ v_weight
        return self.out_proj(merge_heads(attended) + self.v_proj.bias)

    def image_to_tokens(self, image: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from image tokens [1 or P, T, C] to prompt tokens [P, n, C]: [P, T, C]."""
        if not self._regroups(keys.shape[1]):
            return self(q=image + positions, k=keys, v=values)
        k, v = self._scaled_heads(self.k_proj(keys)), split_heads(self.v_proj(values), self.heads)  # [P, heads, n, D]
        # Softmax runs over the few prompt tokens; with the image axis last it is vectorized over the image.
        k_weight = (k @ self._by_head(self.q_proj.weight)).flatten(1, 2)  # [P, heads * n, C]
        scores = self.product(image + positions, k_weight).transpose(-1, -2).contiguous()
        scores = scores.unflatten(1, (self.heads, -1)) + k @ self._by_head(self.q_proj.bias)[..., None]
        weights = torch.softmax(scores, dim=2).flatten(1, 2).transpose(-1, -2)  # [P, T, heads * n]
        out_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # [heads, D, C]
        projected_values = (v @ out_weight).flatten(1, 2).transpose(-1, -2)  # [P, C, heads * n]
        return self.product(weights, projected_values, self.out_proj.bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute x @ weight' + bias: [P, T, C] and [P, M, C] to [P, T, M]. A batch axis of 1 is broadcast."""
        product = x @ weight.transpose(-1, -2)
        return product if bias is None else product + bias

    def _scaled_heads(self, x: Tensor) -> Tensor:
        x = split_heads(x, self.heads)
        return x * x.shape[-1] ** -0.5

    def _by_head(self, parameter: Tensor) -> Tensor:
        """Reshape [heads * D, ...] to [heads, D, ...]."""
        return parameter.unflatten(0, (self.heads, -1))

    @property
    def has_plain_layers(self) -> bool:
        """Whether the four projections are linear layers, and neither they nor the attention have hooks."""
        return is_plain(self.q_proj, self.k_proj, self.v_proj, self.out_proj) and is_unmodified(self)

    def _regroups(self, count: int) -> bool:
        """Tell whether `count` prompt tokens are attended by regrouping.

        It compares the multiplications per image token of both groupings.
        """
        if not self.has_plain_layers:
            return False
        if torch.compiler.is_compiling():  # the count is symbolic, and usually small
            return True
        channels, inner = self.q_proj.in_features, self.q_proj.out_features
        return count * self.heads * channels < channels * inner + count * inner


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, cross-attention to the image, MLP, cross-attention from the image to the tokens."""

    def __init__(self, config: DecoderConfig, width: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(width, config.heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, config.heads, config.cross_attention_width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp: nn.Module = (
            MLP(width, config.mlp_width, width, 2)
            if config.numbered_mlps
            else FeedForward(width, config.mlp_width, "relu")
        )
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, config.heads, config.cross_attention_width)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens and image tokens.

        Args:
            queries: tokens [P, n, C].
            keys: image tokens [1 or P, T, C].
            query_pe: the initial tokens [P, n, C], which serve as position encoding of the tokens.
            key_pe: position encoding of the image, [T, C] or [1 or P, T, C].

        Returns:
            Tokens [P, n, C] and image tokens [P, T, C].
        """
        tokens = self.attend_to_prompt(queries, query_pe)
        attend = self.cross_attn_token_to_image.tokens_to_image
        tokens = self.norm2(tokens + attend(tokens + query_pe, keys, key_pe))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.update_image(keys, key_pe, tokens + query_pe, tokens)

    def attend_to_prompt(self, tokens: Tensor, prompt_tokens: Tensor) -> Tensor:
        """Self-attention of the tokens, with the prompt tokens as position encoding."""
        if self.is_first:  # `skip_first_layer_pe` in the official code: no position encoding and no residual
            return self.norm1(self.self_attn(q=tokens, k=tokens, v=tokens))
        with_positions = tokens + prompt_tokens
        return self.norm1(tokens + self.self_attn(q=with_positions, k=with_positions, v=tokens))

    def update_image(self, image: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Cross-attention from image tokens [1 or P, T, C] to keys and values [P, n, C]: [P, T, C]."""
        return self.norm4(image + self.cross_attn_image_to_token.image_to_tokens(image, positions, keys, values))


class TwoWayTransformer(nn.Module):
    """Two-way blocks, then a final cross-attention from the tokens to the image."""

    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, width, is_first=index == 0) for index in range(config.depth))
        self.final_attn_token_to_image = Attention(width, config.heads, config.cross_attention_width)
        self.norm_final_attn = nn.LayerNorm(width)

    def blocks(self) -> list[TwoWayBlock]:
        return [cast(TwoWayBlock, layer) for layer in self.layers]

    def forward(self, prompt_tokens: Tensor, image: ImageTokens) -> tuple[Tensor, Tensor]:
        """Transform tokens [P, n, C] and the image: returns tokens [P, n, C] and image tokens [P, T, C]."""
        tokens, image_tokens = prompt_tokens, image.tokens
        for block in self.layers:
            tokens, image_tokens = block(
                queries=tokens, keys=image_tokens, query_pe=prompt_tokens, key_pe=image.positions
            )
        attend = self.final_attn_token_to_image.tokens_to_image
        attended = attend(tokens + prompt_tokens, image_tokens, image.positions)
        return self.norm_final_attn(tokens + attended), image_tokens
