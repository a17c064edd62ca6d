"""The mask decoder's transformer for many prompts on one image, without an image of their own for each.

An image token that attends to a few prompt tokens and is normalized becomes a scaled copy of itself plus a
weighted sum of a few vectors. The copy is the same for all prompts but for its scale, the vectors are few, and
all that follows multiplies both by matrices. So the image is multiplied once for all prompts, and a prompt
keeps the scale, the weights and the vectors. That is a third of the arithmetic and a fifth of the memory, and the
same function: only the rounding differs, as much as between any two orders of summation.

On a CPU one prompt goes after the other through memory that stays in the cache. An exported graph takes all prompts
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


class Update(NamedTuple):
    """What a block added to the image tokens of P prompts: coefficients' @ vectors.

    Attributes:
        coefficients: [P, R, T].
        vectors: [P, R, C].
        values: [P, heads, n, D], what the block made the vectors of; R = heads * n.
    """

    coefficients: Tensor
    vectors: Tensor
    values: Tensor


class UpdatedImage(NamedTuple):
    """The image tokens of P prompts: scale * (shared tokens + updates) + constant.

    The shared tokens and the constant are those of the stage that the image has reached.

    Attributes:
        scale: [P, T]; None for one.
        updates: one a block.
    """

    scale: Tensor | None = None
    updates: tuple[Update, ...] = ()


class Scratch:
    """Memory that one batch of prompts after the other uses: fresh memory costs more than what is computed in it."""

    def __init__(self) -> None:
        self.blocks: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        if name not in self.blocks or self.blocks[name].shape != shape:
            self.blocks[name] = like.new_empty(shape)
        return self.blocks[name]


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedImage(ImageTokens):
    """One image, multiplied by all that many prompts will multiply it by; `share_image` makes it.

    With scratch memory it serves one thread, and one batch of prompts at a time: what `transform` returns is
    overwritten by the next call.

    Attributes:
        transformer: of the mask decoder.
        products: what depends on the image, by name.
        constants: what depends on the weights alone, by name.
        scratch: where one prompt after the other is computed. Without it all are computed together, and no tensor
            is written to twice: as an exported graph wants it.
    """

    transformer: TwoWayTransformer
    products: dict[str, Tensor]
    constants: dict[str, Tensor]
    scratch: Scratch | None

    def transform(self, prompt_tokens: Tensor) -> tuple[Tensor, FinishedImage]:
        """`TwoWayTransformer.forward` for P prompts: [P, n, C] to the tokens and the image after it."""
        tokens, image = prompt_tokens, UpdatedImage()
        for index, block in enumerate(self.transformer.blocks()):
            tokens = block.attend_to_prompt(tokens, prompt_tokens)
            attention = block.cross_attn_token_to_image
            tokens = block.norm2(tokens + self._read(index, attention, tokens + prompt_tokens, image))
            tokens = block.norm3(tokens + block.mlp(tokens))
            image = self._write(index, block, tokens + prompt_tokens, tokens, image)
        last = self.transformer.final_attn_token_to_image
        attended = self._read(len(self.transformer.layers), last, tokens + prompt_tokens, image)
        return self.transformer.norm_final_attn(tokens + attended), FinishedImage(self, image)

    def _read(self, index: int, attention: Attention, tokens: Tensor, image: UpdatedImage) -> Tensor:
        """Tokens [P, n, C] attend to the image: [P, n, C]."""
        few = split_heads(attention.q_proj(tokens), attention.heads)  # [P, heads, n, D]
        vectors = [
            split_heads(update.vectors @ attention.v_proj.weight.t(), attention.heads) for update in image.updates
        ]  # [P, heads, R, D] each
        scores_of = self._scores(f"key_{index}", few, attention.k_proj, image)

        def attend(prompts: slice, out: Tensor | None) -> Tensor:
            scores = scores_of(prompts, self._memory("scores", few))
            weights = torch.softmax(scores, dim=-1, out=self._memory("weights", few))
            if image.scale is not None:
                weights = self._times(weights, image.scale[prompts][:, None, None])
            attended = _product(weights, self.products[f"value_{index}"], out)
            for update, some in zip(image.updates, vectors, strict=True):
                mix = weights.flatten(1, 2) @ update.coefficients[prompts].transpose(1, 2)
                attended = torch.add(attended, mix.unflatten(1, weights.shape[1:3]) @ some[prompts], out=out)
            return attended

        attended = self._by_prompt(attend, few, None if self.scratch is None else torch.empty_like(few))
        out: Tensor = attention.out_proj(merge_heads(attended) + self.constants[f"value_bias_{index}"])
        return out

    def _write(self, index: int, block: TwoWayBlock, keys: Tensor, values: Tensor, image: UpdatedImage) -> UpdatedImage:
        """The image attends to tokens [P, n, C] and is normalized."""
        attention = block.cross_attn_image_to_token
        few, made = (split_heads(x, attention.heads) for x in (attention.k_proj(keys), attention.v_proj(values)))
        scores_of = self._scores(f"query_{index}", few, attention.q_proj, image)

        def weigh(prompts: slice, out: Tensor | None) -> Tensor:
            weights = torch.softmax(scores_of(prompts, self._memory("scores", few)), dim=2, out=out)
            if image.scale is None:
                return weights
            return torch.div(weights, image.scale[prompts][:, None, None], out=out)

        count = self.products["rows"].shape[0]
        kept = None
        if self.scratch is not None:
            kept = self.scratch(f"coefficients of block {index}", few, *few.shape[:3], count)
        coefficients = self._by_prompt(weigh, few, kept).flatten(1, 2)
        # The coefficients of a head sum to one, so that adding to its vectors adds to every token.
        by_head = attention.out_proj.weight.unflatten(1, (attention.heads, -1)).permute(1, 2, 0)
        vectors = _add_to_first(centered(made @ by_head), self.constants[f"shift_{index}"])
        earlier = (update._replace(vectors=centered(update.vectors)) for update in image.updates)
        update = Update(coefficients, vectors.flatten(1, 2), made)
        return self._normalized(index, block.norm4, UpdatedImage(image.scale, (*earlier, update)))

    def _normalized(self, index: int, norm: nn.LayerNorm, image: UpdatedImage) -> UpdatedImage:
        """LayerNorm of what is centered already."""
        updates = image.updates
        grams = [
            [update.vectors @ other.vectors.transpose(1, 2) for other in updates[: number + 1]]
            for number, update in enumerate(updates)
        ]

        def square(prompts: slice, out: Tensor | None) -> Tensor:
            """|shared + updates|^2 of each token, [p, T]."""
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
                squares = squares + self._times(rows, coefficients).sum(dim=1)
            return squares if out is None else out.copy_(squares)

        like = updates[0].coefficients
        fresh = None if self.scratch is None else like.new_empty(len(like), like.shape[2])
        squares = self._by_prompt(square, like, fresh)
        variance = squares if image.scale is None else squares * image.scale.square()
        scale = torch.rsqrt(variance / len(norm.weight) + norm.eps)
        scale = scale if image.scale is None else image.scale * scale
        return UpdatedImage(scale, tuple(update._replace(vectors=update.vectors * norm.weight) for update in updates))

    def _scores(
        self, name: str, few: Tensor, layer: nn.Linear, image: UpdatedImage
    ) -> Callable[[slice, Tensor | None], Tensor]:
        """What computes scores [p, heads, n, T] of some prompts, of projected tokens [P, heads, n, D] and the image."""
        few = few * few.shape[-1] ** -0.5
        mixes = [
            (few @ split_heads(update.vectors @ layer.weight.t(), few.shape[1]).transpose(-1, -2)).flatten(1, 2)
            for update in image.updates
        ]  # [P, heads * n, R] each
        projected = self.products[name]

        def scores(prompts: slice, out: Tensor | None) -> Tensor:
            some = few[prompts]
            product = _product(some, projected, out)
            if image.scale is None:
                return product
            rows = product.flatten(1, 2)
            for update, mix in zip(image.updates, mixes, strict=True):
                rows = self._add_product(rows, mix[prompts], update.coefficients[prompts])
            rows = self._times(rows, image.scale[prompts][:, None])
            positions = self.constants[f"{name}_positions"]
            by_head = torch.unflatten(rows, 1, some.shape[1:3])
            if out is None:
                return by_head + some @ positions
            torch.baddbmm(by_head[0], some[0], positions, out=out[0])
            return out

        return scores

    # Arithmetic of some prompts: in place where there is scratch memory.

    def _by_prompt(self, compute: Callable[[slice, Tensor | None], Tensor], like: Tensor, out: Tensor | None) -> Tensor:
        """`compute(prompts, out)` for one prompt after the other into `out`, or for all where there is none."""
        if out is None:
            return compute(slice(None), None)
        for prompt in range(len(like)):
            one = slice(prompt, prompt + 1)
            compute(one, out[one])
        return out

    def _memory(self, name: str, few: Tensor) -> Tensor | None:
        """For [1, heads, n, T] of one prompt's tokens [p, heads, n, D]."""
        if self.scratch is None:
            return None
        return self.scratch(name, few, 1, few.shape[1], few.shape[2], len(self.products["rows"]))

    def _times(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor if self.scratch is None else x.mul_(factor)

    def _add_product(self, rows: Tensor, left: Tensor, right: Tensor, times: float = 1) -> Tensor:
        """times * rows + left @ right, [p, R, T]. `addmm_` takes twice the time of this."""
        if self.scratch is None:
            return times * rows + left @ right
        return rows.baddbmm_(left, right, beta=times)


class FinishedImage(NamedTuple):
    """The image after the transformer, for each of P prompts."""

    shared: SharedImage
    updated: UpdatedImage

    def rows(self, prompts: slice, together: int) -> Iterator[Tensor]:
        """The linear layer that follows: [p, t, 4, D / 4] of some prompts, so many tokens after the other."""
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
        """`rows` of one prompt after the other."""
        together = CACHE_BUDGET // (4 * self.shared.products["rows"].shape[1])
        for prompt in range(len(self.updated.updates[0].vectors)):
            yield self.rows(slice(prompt, prompt + 1), together)


def share_image(decoder: MaskDecoder, image: ImageTokens, *, in_place: bool = True) -> SharedImage:
    """Multiply an image for many prompts.

    Args:
        decoder: the mask decoder.
        image: of one image, [1, T, C].
        in_place: whether prompts are computed one after the other in scratch memory.
    """
    transformer, (weight, bias) = decoder.transformer, linear_of(decoder.output_upscaling[0])
    tokens, offset = image.tokens[0], image.tokens.new_zeros(image.tokens.shape[2])
    products: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {"weight": weight}
    blocks = transformer.blocks()
    for index, block in enumerate(blocks):
        for made in (
            _read_products(index, block.cross_attn_token_to_image, tokens, offset, image.positions),
            _write_products(index, blocks[: index + 1], tokens, offset, image.positions),
        ):
            products |= made[0]
            constants |= made[1]
        tokens, offset = centered(tokens) * block.norm4.weight, block.norm4.bias
    last = _read_products(len(blocks), transformer.final_attn_token_to_image, tokens, offset, image.positions)
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


Made = tuple[dict[str, Tensor], dict[str, Tensor]]


def _read_products(index: int, attention: Attention, image: Tensor, offset: Tensor, positions: Tensor) -> Made:
    """What is the same for all prompts where tokens attend to the image [T, C]: products and constants."""
    products, constants = _projected(f"key_{index}", attention.k_proj, attention.heads, image, offset, positions, index)
    value = _to_heads(linear(image, attention.v_proj.weight), attention.heads)
    products[f"value_{index}"] = value.transpose(-1, -2).contiguous()  # [heads, T, D]
    constants[f"value_bias_{index}"] = attention.v_proj(offset)
    return products, constants


def _write_products(
    index: int, blocks: Sequence[TwoWayBlock], image: Tensor, offset: Tensor, positions: Tensor
) -> Made:
    """The same where the image attends to tokens and is normalized, in the last of the blocks."""
    attention = blocks[-1].cross_attn_image_to_token
    projected = (attention.q_proj, attention.heads, image, offset, positions, index)
    products, constants = _projected(f"query_{index}", *projected)
    constants[f"shift_{index}"] = _shift(attention, offset)
    moved = centered(image)
    products[f"square_{index}"] = moved.square().sum(dim=1)
    # Products of the shared tokens with the vectors of the earlier blocks, as they are by now, and of this one.
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
    """[C], what an attention adds to every image token, centered; `offset` is the constant before it."""
    return centered(offset + attention.out_proj.bias)


def _projected(
    name: str, layer: nn.Linear, heads: int, image: Tensor, offset: Tensor, positions: Tensor, index: int
) -> Made:
    """The image and its positions, projected to the heads of an attention: [heads, D, T].

    Until the first block has updated the image both are always added.
    """
    of_image = _to_heads(linear(image, layer.weight), heads)
    of_positions = _to_heads(linear(positions + offset, layer.weight, layer.bias), heads)
    if index == 0:
        return {name: of_image + of_positions}, {}
    return {name: of_image}, {f"{name}_positions": of_positions}


def centered(x: Tensor) -> Tensor:
    """Without the mean over the channels."""
    return x - x.mean(dim=-1, keepdim=True)


def _to_heads(projected: Tensor, heads: int) -> Tensor:
    """[T, heads * D] to [heads, D, T]."""
    return torch.unflatten(projected.t(), 0, (heads, -1)).contiguous()


def _product(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    """[p, heads, n, K] by [heads, K, N]: [p, heads, n, N]; of one prompt where there is memory for it."""
    if out is None:
        return left @ right
    torch.bmm(left[0], right, out=out[0])
    return out


def _add_to_first(by_head: Tensor, row: Tensor, *, in_place: bool = False) -> Tensor:
    """Add to the first head of [p, heads, n, N]."""
    if in_place:
        by_head[:, 0] += row
        return by_head
    return torch.cat([by_head[:, :1] + row, by_head[:, 1:]], dim=1)
