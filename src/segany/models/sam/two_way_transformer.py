"""Attention between a few prompt tokens and the whole image, in both directions (SAM, section A)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segany.models.sam.config import DecoderConfig
from segany.nn.attention import merge_heads, split_heads
from segany.nn.layers import FeedForward, Linear
from segany.ops.compute import batched_linear


class ImageTokens(NamedTuple):
    """The image as the decoder sees it.

    `tokens` [1 or P, T, C] start out the same for all prompts without a mask, with a leading 1;
    `positions` [T, C] are their encodings.
    """

    tokens: Tensor
    positions: Tensor

    def with_positions(self) -> Tensor:
        return self.tokens + self.positions


class Attention(nn.Module):
    """Multi-head attention that may narrow its inner width.

    Between n prompt tokens and T image tokens, T >> n, nearly all work is projecting the image.
    Products can be grouped otherwise: (x_q W_q) (x_i W_k)' = ((x_q W_q) W_k') x_i', so that weights
    multiply the few tokens and the image is used as it is. `tokens_to_image` and `image_to_tokens`
    choose the cheaper grouping; `forward` always projects.
    """

    def __init__(self, width: int, heads: int, inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or width
        self.heads = heads
        self.q_proj = Linear(width, inner)
        self.k_proj = Linear(width, inner)
        self.v_proj = Linear(width, inner)
        self.out_proj = Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[P, n, C] attends to [P, m, C]; batches of one are shared. Returns [P, n, C]."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.out_proj(merge_heads(weights @ v))

    def tokens_to_image(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Prompt tokens [P, n, C] attend to image tokens [1 or P, T, C]. Returns [P, n, C]."""
        if self._projecting_is_cheaper(tokens, keys):
            return self.forward(tokens, keys, values)
        q = split_heads(self.q_proj(tokens), self.heads)  # [P, heads, n, D]
        # The bias of the keys adds the same number to all scores of a query: softmax drops it.
        q = q @ self.k_proj.weight.unflatten(0, (self.heads, -1)) * q.shape[-1] ** -0.5  # [P, heads, n, C]
        scores = batched_linear(keys, q.flatten(1, 2)).transpose(-1, -2)  # [P, heads * n, T]
        attended = torch.softmax(scores.contiguous(), dim=-1) @ values  # [P, heads * n, C]
        v_weight = self.v_proj.weight.unflatten(0, (self.heads, -1))  # [heads, D, C]
        attended = attended.unflatten(1, (self.heads, -1)) @ v_weight.transpose(-1, -2)
        return self.out_proj(merge_heads(attended) + self.v_proj.bias)

    def image_to_tokens(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Image tokens [1 or P, T, C] attend to prompt tokens [P, n, C]. Returns [P, T, C]."""
        if self._projecting_is_cheaper(keys, queries):
            return self.forward(queries, keys, values)
        k = split_heads(self.k_proj(keys), self.heads)  # [P, heads, n, D]
        v = split_heads(self.v_proj(values), self.heads)
        k = k * k.shape[-1] ** -0.5
        q_weight = self.q_proj.weight.unflatten(0, (self.heads, -1))  # [heads, D, C]
        q_bias = self.q_proj.bias.unflatten(0, (self.heads, -1))  # [heads, D]
        scores = batched_linear(queries, (k @ q_weight).flatten(1, 2)).transpose(-1, -2)  # [P, heads * n, T]
        # Softmax runs over the few tokens: with the image last, in whole vectors.
        scores = scores.contiguous().unflatten(1, (self.heads, -1)) + k @ q_bias[..., None]  # [P, heads, n, T]
        weights = torch.softmax(scores, dim=2).flatten(1, 2)
        out_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).transpose(0, 1)  # [heads, C, D]
        projected = (v @ out_weight.transpose(-1, -2)).flatten(1, 2)  # [P, heads * n, C]
        return batched_linear(weights.transpose(-1, -2), projected.transpose(-1, -2), self.out_proj.bias)

    def _projecting_is_cheaper(self, tokens: Tensor, image: Tensor) -> bool:
        """Compare multiplications an image token: projecting it to D channels, against n * heads rows of C."""
        prompts, count, channels = tokens.shape
        inner = self.q_proj.out_features
        project = len(image) * channels * inner + prompts * count * inner
        regroup = prompts * count * self.heads * channels
        return project <= regroup


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, tokens to the image, an MLP on the tokens, the image to the tokens."""

    def __init__(self, config: DecoderConfig, width: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(width, config.heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, config.heads, config.cross_attention_width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.mlp_width, "relu")
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, config.heads, config.cross_attention_width)

    def forward(self, tokens: Tensor, prompt_tokens: Tensor, image: ImageTokens) -> tuple[Tensor, ImageTokens]:
        # The prompt tokens are their own positions; the first block starts from them alone.
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            with_positions = tokens + prompt_tokens
            tokens = tokens + self.self_attn(with_positions, with_positions, tokens)
        tokens = self.norm1(tokens)
        keys = image.with_positions()
        attended = self.cross_attn_token_to_image.tokens_to_image(tokens + prompt_tokens, keys, image.tokens)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        update = self.cross_attn_image_to_token.image_to_tokens(keys, tokens + prompt_tokens, tokens)
        return tokens, image._replace(tokens=self.norm4(image.tokens + update))


class TwoWayTransformer(nn.Module):
    """The decoder's transformer: blocks in both directions, then once more from tokens to image."""

    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, width, is_first=index == 0) for index in range(config.depth))
        self.final_attn_token_to_image = Attention(width, config.heads, config.cross_attention_width)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, prompt_tokens: Tensor, image: ImageTokens) -> tuple[Tensor, Tensor]:
        """[P, n, C] and the image to the tokens [P, n, C] and image tokens [P, T, C] after both."""
        tokens = prompt_tokens
        for layer in self.layers:
            tokens, image = layer(tokens, prompt_tokens, image)
        attended = self.final_attn_token_to_image.tokens_to_image(
            tokens + prompt_tokens, image.with_positions(), image.tokens
        )
        tokens = self.norm_final_attn(tokens + attended)
        return tokens, image.tokens
