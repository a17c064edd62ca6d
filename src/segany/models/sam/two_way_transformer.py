"""Attention between a few prompt tokens and the whole image, in both directions (SAM, section A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from segany.models.sam.config import DecoderConfig
from segany.nn.attention import merge_heads, split_heads
from segany.nn.layers import MLP, FeedForward


class HighResFeatures(NamedTuple):
    """High-resolution features of an image in the order of its tokens (SAM 2, section 4).

    Attributes:
        stride8: [1 or P, T, 4, C / 4], for the 2 x 2 below each token.
        stride4: [1 or P, T, 4, 4, C / 8], for the 2 x 2 below each of those.
    """

    stride8: Tensor
    stride4: Tensor


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """The image as the decoder sees it.

    Attributes:
        tokens: [1, T, C], which all prompts share, or [P, T, C]; the dense prompt embedding is added.
        positions: [T, C], encodings of the positions.
        high_res_features: what the image adds to its upscaled tokens, where the model has that; see
            `MaskUpscaling`.
    """

    tokens: Tensor
    positions: Tensor
    high_res_features: HighResFeatures | None = None


class Attention(nn.Module):
    """Multi-head attention that may narrow its inner width.

    `forward` is plain attention. `tokens_to_image` and `image_to_tokens` are the same between n prompt
    tokens and T image tokens, T >> n, where nearly all work is projecting the image. Products can be
    grouped otherwise: (x W_q) (y W_k)' = ((x W_q) W_k') y', so that weights multiply the few tokens and
    the image is used as it is. That is cheaper while the tokens are few.
    """

    def __init__(self, width: int, heads: int, inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or width
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[P, n, C] attends to [P, m, C]; batches of one are shared. Returns [P, n, C]."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.out_proj(merge_heads(weights @ v))

    def tokens_to_image(self, tokens: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Prompt tokens [P, n, C] attend to image tokens [1 or P, T, C]. Returns [P, n, C]."""
        if not self._regrouping_is_cheaper(tokens.shape[1]):
            return self.forward(tokens, image + positions, image)
        q = self._scaled_heads(self.q_proj(tokens))  # [P, heads, n, D]
        # The bias of the keys adds the same number to all scores of a query: softmax drops it.
        q = (q @ self._by_head(self.k_proj.weight)).flatten(1, 2)  # [P, heads * n, C]
        scores = self.product(image + positions, q).transpose(-1, -2)  # [P, heads * n, T]
        attended = torch.softmax(scores.contiguous(), dim=-1) @ image  # [P, heads * n, C]
        v_weight = self._by_head(self.v_proj.weight).transpose(-1, -2)  # [heads, C, D]
        attended = attended.unflatten(1, (self.heads, -1)) @ v_weight
        return self.out_proj(merge_heads(attended) + self.v_proj.bias)

    def image_to_tokens(self, image: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Image tokens [1 or P, T, C] attend to prompt tokens [P, n, C]. Returns [P, T, C]."""
        if not self._regrouping_is_cheaper(keys.shape[1]):
            return self.forward(image + positions, keys, values)
        k, v = self._scaled_heads(self.k_proj(keys)), split_heads(self.v_proj(values), self.heads)  # [P, heads, n, D]
        # Softmax runs over the few tokens: with the image last, in whole vectors.
        k_weight = (k @ self._by_head(self.q_proj.weight)).flatten(1, 2)  # [P, heads * n, C]
        scores = self.product(image + positions, k_weight).transpose(-1, -2).contiguous()
        scores = scores.unflatten(1, (self.heads, -1)) + k @ self._by_head(self.q_proj.bias)[..., None]
        weights = torch.softmax(scores, dim=2).flatten(1, 2).transpose(-1, -2)  # [P, T, heads * n]
        out_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # [heads, D, C]
        projected_values = (v @ out_weight).flatten(1, 2).transpose(-1, -2)  # [P, C, heads * n]
        return self.product(weights, projected_values, self.out_proj.bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x @ weight' + bias: [P, T, C] by [P, M, C] to [P, T, M]; leading axes of one are shared."""
        product = x @ weight.transpose(-1, -2)
        return product if bias is None else product + bias

    def _scaled_heads(self, x: Tensor) -> Tensor:
        x = split_heads(x, self.heads)
        return x * x.shape[-1] ** -0.5

    def _by_head(self, parameter: Tensor) -> Tensor:
        """[heads * D, ...] to [heads, D, ...]."""
        return parameter.unflatten(0, (self.heads, -1))

    def _regrouping_is_cheaper(self, count: int) -> bool:
        """Compare multiplications an image token: count * heads rows of C, against projecting it to D channels."""
        if torch.compiler.is_compiling():  # the count is any; it is small as a rule
            return True
        channels, inner = self.q_proj.in_features, self.q_proj.out_features
        return count * self.heads * channels < channels * inner + count * inner


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, tokens to the image, an MLP on the tokens, the image to the tokens."""

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

    def forward(self, tokens: Tensor, prompt_tokens: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [P, n, C] and image tokens [1 or P, T, C] to both, [P, n, C] and [P, T, C]."""
        tokens = self.attend_to_prompt(tokens, prompt_tokens)
        attend = self.cross_attn_token_to_image.tokens_to_image
        tokens = self.norm2(tokens + attend(tokens + prompt_tokens, image, positions))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.update_image(image, positions, tokens + prompt_tokens, tokens)

    def attend_to_prompt(self, tokens: Tensor, prompt_tokens: Tensor) -> Tensor:
        """The tokens attend to themselves. The prompt tokens are their own positions."""
        if self.is_first:  # it starts from them alone
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        with_positions = tokens + prompt_tokens
        return self.norm1(tokens + self.self_attn(with_positions, with_positions, tokens))

    def update_image(self, image: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The image [1 or P, T, C] attends to the tokens [P, n, C]: [P, T, C]."""
        return self.norm4(image + self.cross_attn_image_to_token.image_to_tokens(image, positions, keys, values))


class TwoWayTransformer(nn.Module):
    """The decoder's transformer: blocks in both directions, then once more from tokens to image."""

    def __init__(self, config: DecoderConfig, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, width, is_first=index == 0) for index in range(config.depth))
        self.final_attn_token_to_image = Attention(width, config.heads, config.cross_attention_width)
        self.norm_final_attn = nn.LayerNorm(width)

    def blocks(self) -> list[TwoWayBlock]:
        return [cast(TwoWayBlock, layer) for layer in self.layers]

    def forward(self, prompt_tokens: Tensor, image: ImageTokens) -> tuple[Tensor, Tensor]:
        """[P, n, C] and the image to the tokens [P, n, C] and the image tokens [P, T, C] after both."""
        tokens, image_tokens = prompt_tokens, image.tokens
        for block in self.layers:
            tokens, image_tokens = block(tokens, prompt_tokens, image_tokens, image.positions)
        attend = self.final_attn_token_to_image.tokens_to_image
        attended = attend(tokens + prompt_tokens, image_tokens, image.positions)
        return self.norm_final_attn(tokens + attended), image_tokens
