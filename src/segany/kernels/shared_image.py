"""The two-way transformer for many prompts on one image, with image tokens as a shared part plus a low-rank update.

Cross-attention from the image to n prompt tokens adds a matrix of low rank (heads * n) to the image tokens, and layer
norm scales each token. The image tokens of a prompt are therefore scale * (shared tokens + low-rank update) + constant,
where the shared tokens are the same for all prompts. The projections that follow are linear in the image tokens, so the
products of the shared tokens with their weights are computed once for all prompts (`share_image`), and each prompt
keeps only its scale and the factors of its update. This takes a third of the operations and a fifth of the memory. The
outputs are the same up to rounding.

On a CPU, prompts are processed one at a time in buffers that stay in the cache. An exported graph processes all prompts
as one batch; see `SharedImage.scratch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, batched_linear, linear
from segany.models.sam.mask_decoder import MaskDecoder, linear_of
from segany.models.sam.two_way_transformer import Attention, ImageTokens, TwoWayBlock, TwoWayTransformer
from segany.nn.attention import merge_heads, split_heads


class LowRankUpdate(NamedTuple):
    """The update of a block to the image tokens of P prompts, of rank R = heads * n: coefficients' @ vectors.

    Attributes:
        coefficients: [P, R, T], attention weights from the image to the tokens.
        vectors: [P, R, C], projected values of the tokens.
        values: [P, heads, n, D], the values before the output projection.
    """

    coefficients: Tensor
    vectors: Tensor
    values: Tensor


class UpdatedImage(NamedTuple):
    """The image tokens of P prompts: scale * (shared tokens + updates) + constant.

    The shared tokens and the constant depend on the number of blocks so far; they are not stored here.

    Attributes:
        scale: [P, T], from layer norm; None for 1.
        updates: the update of each block so far.
    """

    scale: Tensor | None = None
    updates: tuple[LowRankUpdate, ...] = ()


class Scratch:
    """Named buffers that are reused for each prompt: page faults of new memory cost more than the computation."""

    def __init__(self) -> None:
        self.blocks: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        if name not in self.blocks or self.blocks[name].shape != shape:
            self.blocks[name] = like.new_empty(shape)
        return self.blocks[name]


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedImage(ImageTokens):
    """Image tokens with precomputed products for many prompts, made by `share_image`.

    With `scratch` it is not thread-safe, and the next call of `transform` overwrites the result of the previous call.

    Attributes:
        transformer: the two-way transformer of the mask decoder.
        products: precomputed tensors that depend on the image, by name.
        constants: precomputed tensors that depend on the weights only, by name.
        scratch: buffers for processing one prompt at a time. If it is None, all prompts are processed as one batch
            without in-place operations, as export requires.
    """

    transformer: TwoWayTransformer
    products: dict[str, Tensor]
    constants: dict[str, Tensor]
    scratch: Scratch | None

    def transform(self, prompt_tokens: Tensor) -> tuple[Tensor, TransformedImage]:
        """Compute `TwoWayTransformer.forward` for prompt tokens [P, n, C]: returns tokens [P, n, C] and the image."""
        tokens, image = prompt_tokens, UpdatedImage()
        for index, block in enumerate(self.transformer.blocks()):
            tokens = block.attend_to_prompt(tokens, prompt_tokens)
            attention = block.cross_attn_token_to_image
            tokens = block.norm2(tokens + self._attend_tokens_to_image(index, attention, tokens + prompt_tokens, image))
            tokens = block.norm3(tokens + block.mlp(tokens))
            image = self._attend_image_to_tokens(index, block, tokens + prompt_tokens, tokens, image)
        last = self.transformer.final_attn_token_to_image
        attended = self._attend_tokens_to_image(len(self.transformer.layers), last, tokens + prompt_tokens, image)
        return self.transformer.norm_final_attn(tokens + attended), TransformedImage(self, image)

    def _attend_tokens_to_image(self, index: int, attention: Attention, tokens: Tensor, image: UpdatedImage) -> Tensor:
        """Cross-attention from tokens [P, n, C] to the image: [P, n, C]."""
        token_heads = split_heads(attention.q_proj(tokens), attention.heads)  # [P, heads, n, D]
        vectors = [
            split_heads(update.vectors @ attention.v_proj.weight.t(), attention.heads) for update in image.updates
        ]  # [P, heads, R, D] each
        scores_of = self._scores(f"key_{index}", token_heads, attention.k_proj, image)

        def attend(prompts: slice, out: Tensor | None) -> Tensor:
            scores = scores_of(prompts, self._memory("scores", token_heads))
            weights = torch.softmax(scores, dim=-1, out=self._memory("weights", token_heads))
            if image.scale is not None:
                weights = self._multiply(weights, image.scale[prompts][:, None, None])
            attended = _product(weights, self.products[f"value_{index}"], out)
            for update, some in zip(image.updates, vectors, strict=True):
                mix = weights.flatten(1, 2) @ update.coefficients[prompts].transpose(1, 2)
                attended = torch.add(attended, mix.unflatten(1, weights.shape[1:3]) @ some[prompts], out=out)
            return attended

        attended = self._by_prompt(attend, token_heads, None if self.scratch is None else torch.empty_like(token_heads))
        out: Tensor = attention.out_proj(merge_heads(attended) + self.constants[f"value_bias_{index}"])
        return out

    def _attend_image_to_tokens(
        self, index: int, block: TwoWayBlock, keys: Tensor, values: Tensor, image: UpdatedImage
    ) -> UpdatedImage:
        """Cross-attention from the image to tokens [P, n, C], residual and layer norm."""
        attention = block.cross_attn_image_to_token
        token_heads, made = (
            split_heads(x, attention.heads) for x in (attention.k_proj(keys), attention.v_proj(values))
        )
        scores_of = self._scores(f"query_{index}", token_heads, attention.q_proj, image)

        def weigh(prompts: slice, out: Tensor | None) -> Tensor:
            weights = torch.softmax(scores_of(prompts, self._memory("scores", token_heads)), dim=2, out=out)
            if image.scale is None:
                return weights
            return torch.div(weights, image.scale[prompts][:, None, None], out=out)

        count = self.products["rows"].shape[0]
        kept = None
        if self.scratch is not None:
            kept = self.scratch(f"coefficients of block {index}", token_heads, *token_heads.shape[:3], count)
        coefficients = self._by_prompt(weigh, token_heads, kept).flatten(1, 2)
        # The coefficients of a head sum to one for every token, so a constant can be added to the vectors of one head.
        by_head = attention.out_proj.weight.unflatten(1, (attention.heads, -1)).permute(1, 2, 0)
        vectors = _add_to_first(centered(made @ by_head), self.constants[f"shift_{index}"])
        earlier = (update._replace(vectors=centered(update.vectors)) for update in image.updates)
        update = LowRankUpdate(coefficients, vectors.flatten(1, 2), made)
        return self._layer_norm(index, block.norm4, UpdatedImage(image.scale, (*earlier, update)))

    def _layer_norm(self, index: int, norm: nn.LayerNorm, image: UpdatedImage) -> UpdatedImage:
        """Apply layer norm to image tokens whose mean is already subtracted."""
        updates = image.updates
        grams = [
            [update.vectors @ other.vectors.transpose(1, 2) for other in updates[: number + 1]]
            for number, update in enumerate(updates)
        ]

        def square(prompts: slice, out: Tensor | None) -> Tensor:
            """Compute |shared tokens + updates|^2 for each token of p prompts: [p, T]."""
            squares = self.products[f"square_{index}"]
            for number, update in enumerate(updates):
                values, coefficients = update.values[prompts], update.coefficients[prompts]
                memory = self._memory("scores", values)
                product = _product(values, self.products[f"product_{index}_{number}"], memory)
                product = _add_to_first(product, self.products[f"row_{index}_{number}"], in_place=memory is not None)
                rows = product.flatten(1, 2)
                for other, gram in zip(updates[:number], grams[number], strict=False):
                    rows = self._add_product(rows, gram[prompts], other.coefficients[prompts])
                rows = self._add_product(rows, grams[number][number][prompts], coefficients, times=2)
                squares = squares + self._multiply(rows, coefficients).sum(dim=1)
            return squares if out is None else out.copy_(squares)

        like = updates[0].coefficients
        fresh = None if self.scratch is None else like.new_empty(len(like), like.shape[2])
        squares = self._by_prompt(square, like, fresh)
        variance = squares if image.scale is None else squares * image.scale.square()
        scale = torch.rsqrt(variance / len(norm.weight) + norm.eps)
        scale = scale if image.scale is None else image.scale * scale
        return UpdatedImage(scale, tuple(update._replace(vectors=update.vectors * norm.weight) for update in updates))

    def _scores(
        self, name: str, token_heads: Tensor, layer: nn.Linear, image: UpdatedImage
    ) -> Callable[[slice, Tensor | None], Tensor]:
        """Make a function that computes the scores [p, heads, n, T] of a slice of prompts.

        `token_heads` [P, heads, n, D] are projected tokens; `layer` projects the image, and `name` names its product.
        """
        token_heads = token_heads * token_heads.shape[-1] ** -0.5
        mixes = [
            (
                token_heads @ split_heads(update.vectors @ layer.weight.t(), token_heads.shape[1]).transpose(-1, -2)
            ).flatten(1, 2)
            for update in image.updates
        ]  # [P, heads * n, R] each
        projected = self.products[name]

        def scores(prompts: slice, out: Tensor | None) -> Tensor:
            some = token_heads[prompts]
            product = _product(some, projected, out)
            if image.scale is None:
                return product
            rows = product.flatten(1, 2)
            for update, mix in zip(image.updates, mixes, strict=True):
                rows = self._add_product(rows, mix[prompts], update.coefficients[prompts])
            rows = self._multiply(rows, image.scale[prompts][:, None])
            positions = self.constants[f"{name}_positions"]
            by_head = torch.unflatten(rows, 1, some.shape[1:3])
            if out is None:
                return by_head + some @ positions
            torch.baddbmm(by_head[0], some[0], positions, out=out[0])
            return out

        return scores

    # Operations on a slice of prompts, in place if there are buffers.

    def _by_prompt(self, compute: Callable[[slice, Tensor | None], Tensor], like: Tensor, out: Tensor | None) -> Tensor:
        """Call `compute(prompts, out)` for one prompt at a time, or for all prompts if `out` is None."""
        if out is None:
            return compute(slice(None), None)
        for prompt in range(len(like)):
            one = slice(prompt, prompt + 1)
            compute(one, out[one])
        return out

    def _memory(self, name: str, token_heads: Tensor) -> Tensor | None:
        """Return a buffer [1, heads, n, T] for tokens [p, heads, n, D]; None without buffers."""
        if self.scratch is None:
            return None
        return self.scratch(
            name, token_heads, 1, token_heads.shape[1], token_heads.shape[2], len(self.products["rows"])
        )

    def _multiply(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor if self.scratch is None else x.mul_(factor)

    def _add_product(self, rows: Tensor, left: Tensor, right: Tensor, times: float = 1) -> Tensor:
        """Compute times * rows + left @ right, [p, R, T]. `addmm_` would take twice the time."""
        if self.scratch is None:
            return times * rows + left @ right
        return rows.baddbmm_(left, right, beta=times)


class TransformedImage(NamedTuple):
    """The image tokens of P prompts after the transformer."""

    shared: SharedImage
    updated: UpdatedImage

    def rows(self, prompts: slice, together: int) -> Iterator[Tensor]:
        """Apply the first layer of mask upscaling to chunks of `together` tokens: yields [p, t, 4, D / 4]."""
        products, constants, updates = self.shared.products, self.shared.constants, self.updated.updates
        assert self.updated.scale is not None
        scale = self.updated.scale[prompts, :, None]
        coefficients = torch.cat([update.coefficients[prompts] for update in updates], dim=1)  # [p, R, T]
        vectors = torch.cat([update.vectors[prompts] for update in updates], dim=1)  # [p, R, C]
        weight = constants["weight"] @ vectors.transpose(1, 2)  # [p, D, R]
        for first in range(0, len(products["rows"]), together):
            piece = slice(first, first + together)
            rows = batched_linear(coefficients[:, :, piece].transpose(1, 2), weight).add_(products["rows"][piece])
            yield torch.addcmul(constants["bias"], rows, scale[:, piece]).unflatten(2, (4, -1))

    def rows_by_prompt(self) -> Iterator[Iterator[Tensor]]:
        """Yield `rows` for each prompt."""
        together = CACHE_BUDGET // (4 * self.shared.products["rows"].shape[1])
        for prompt in range(len(self.updated.updates[0].vectors)):
            yield self.rows(slice(prompt, prompt + 1), together)


def share_image(decoder: MaskDecoder, image: ImageTokens, *, in_place: bool = True) -> SharedImage:
    """Precompute the products of image tokens with the weights of a mask decoder.

    Args:
        decoder: the mask decoder.
        image: tokens of one image, [1, T, C].
        in_place: process prompts one at a time in buffers, instead of as one batch.
    """
    transformer, (weight, bias) = decoder.transformer, linear_of(decoder.output_upscaling[0])
    tokens, offset = image.tokens[0], image.tokens.new_zeros(image.tokens.shape[2])
    products: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {"weight": weight}
    blocks = transformer.blocks()
    for index, block in enumerate(blocks):
        for made in (
            _token_to_image_products(index, block.cross_attn_token_to_image, tokens, offset, image.positions),
            _image_to_token_products(index, blocks[: index + 1], tokens, offset, image.positions),
        ):
            products |= made[0]
            constants |= made[1]
        tokens, offset = centered(tokens) * block.norm4.weight, block.norm4.bias
    last = _token_to_image_products(len(blocks), transformer.final_attn_token_to_image, tokens, offset, image.positions)
    products |= last[0] | {"rows": linear(tokens, weight)}
    constants |= last[1] | {"bias": F.linear(offset, weight, bias)}
    scratch = Scratch() if in_place else None
    return SharedImage(
        image.tokens,
        image.positions,
        image.high_res_features,
        transformer=transformer,
        products=products,
        constants=constants,
        scratch=scratch,
    )


Tables = tuple[dict[str, Tensor], dict[str, Tensor]]


def _token_to_image_products(
    index: int, attention: Attention, image: Tensor, offset: Tensor, positions: Tensor
) -> Tables:
    """Precompute products and constants of the cross-attention from tokens to the image [T, C]."""
    products, constants = _projected(f"key_{index}", attention.k_proj, attention.heads, image, offset, positions, index)
    value = _to_heads(linear(image, attention.v_proj.weight), attention.heads)
    products[f"value_{index}"] = value.transpose(-1, -2).contiguous()  # [heads, T, D]
    constants[f"value_bias_{index}"] = attention.v_proj(offset)
    return products, constants


def _image_to_token_products(
    index: int, blocks: Sequence[TwoWayBlock], image: Tensor, offset: Tensor, positions: Tensor
) -> Tables:
    """Precompute products and constants of the cross-attention and layer norm of the image in the last block."""
    attention = blocks[-1].cross_attn_image_to_token
    projected = (attention.q_proj, attention.heads, image, offset, positions, index)
    products, constants = _projected(f"query_{index}", *projected)
    constants[f"shift_{index}"] = _shift(attention, offset)
    moved = centered(image)
    products[f"square_{index}"] = moved.square().sum(dim=1)
    # Products of the shared tokens with the vectors of this block and of the earlier blocks after their layer norms.
    for number in range(index, -1, -1):
        attention, norm = blocks[number].cross_attn_image_to_token, blocks[number].norm4
        before = blocks[number - 1].norm4.bias if number else torch.zeros_like(offset)
        if number < index:
            moved = centered(moved * norm.weight)
        by_head = _to_heads(linear(moved, attention.out_proj.weight.t().contiguous()), attention.heads)
        products |= {
            f"product_{index}_{number}": by_head,
            f"row_{index}_{number}": moved @ _shift(attention, before),
        }
    return products, constants


def _shift(attention: Attention, offset: Tensor) -> Tensor:
    """Return the constant [C] that an attention adds to every image token, with its mean subtracted.

    `offset` [C] is the constant before the attention.
    """
    return centered(offset + attention.out_proj.bias)


def _projected(
    name: str, layer: nn.Linear, heads: int, image: Tensor, offset: Tensor, positions: Tensor, index: int
) -> Tables:
    """Project the image and its position encoding to the heads of an attention: [heads, D, T] each.

    Before the first update of the image, they are stored as one sum.
    """
    of_image = _to_heads(linear(image, layer.weight), heads)
    of_positions = _to_heads(linear(positions + offset, layer.weight, layer.bias), heads)
    if index == 0:
        return {name: of_image + of_positions}, {}
    return {name: of_image}, {f"{name}_positions": of_positions}


def centered(x: Tensor) -> Tensor:
    """Subtract the mean over the channels from [..., C]."""
    return x - x.mean(dim=-1, keepdim=True)


def _to_heads(projected: Tensor, heads: int) -> Tensor:
    """Reshape [T, heads * D] to [heads, D, T]."""
    return torch.unflatten(projected.t(), 0, (heads, -1)).contiguous()


def _product(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    """Multiply [p, heads, n, K] by [heads, K, N]: [p, heads, n, N]. With `out`, p must be 1."""
    if out is None:
        return left @ right
    torch.bmm(left[0], right, out=out[0])
    return out


def _add_to_first(by_head: Tensor, row: Tensor, *, in_place: bool = False) -> Tensor:
    """Add a row to the first head of [p, heads, n, N]."""
    if in_place:
        by_head[:, 0] += row
        return by_head
    return torch.cat([by_head[:, :1] + row, by_head[:, 1:]], dim=1)
