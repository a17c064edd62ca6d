"""The mask decoder's transformer for many prompts on one image, without an image of their own for each.

An image token that attends to a few prompt tokens and is normalized becomes a scaled copy of itself plus a
weighted sum of a few vectors. The copy is the same for all prompts but for its scale, the vectors are few, and
all that follows multiplies both by matrices. So the image is multiplied once for all prompts, and a prompt
keeps the scale, the weights and the vectors. That is a third of the arithmetic and a fifth of the memory, and the
same function: only the rounding differs, as much as between any two orders of summation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.kernels.compute import CACHE_BUDGET, linear
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
        scale: [P, T].
        updates: one a block.
    """

    scale: Tensor
    updates: tuple[Update, ...]


class FinishedImage(NamedTuple):
    """The image after the transformer, for each of P prompts."""

    shared: SharedImage
    updated: UpdatedImage

    def rows(self, prompt: int) -> Iterator[Tensor]:
        """The linear layer that follows, for one of the prompts: [1, t, 4, D / 4] of some tokens after the other."""
        shared, updated = self.shared, self.updated
        coefficients = torch.cat([update.coefficients[prompt] for update in updated.updates])  # [R, T]
        vectors = torch.cat([update.vectors[prompt] for update in updated.updates])  # [R, C]
        weight = shared.weight @ vectors.t()
        together = CACHE_BUDGET // (4 * len(weight))
        for first in range(0, len(shared.rows), together):
            piece = slice(first, first + together)
            rows = linear(coefficients[:, piece].t().contiguous(), weight).add_(shared.rows[piece])
            rows = torch.addcmul(shared.bias, rows, updated.scale[prompt, piece, None])
            yield rows.unflatten(1, (4, -1))[None]


class _Scratch:
    """Memory that one batch of prompts after the other uses: fresh memory costs more than what is computed in it."""

    def __init__(self) -> None:
        self.blocks: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        if name not in self.blocks or self.blocks[name].shape != shape:
            self.blocks[name] = like.new_empty(shape)
        return self.blocks[name]


class _Projected:
    """The image and its positions, projected to the heads of an attention: [heads, D, T] each."""

    def __init__(self, layer: nn.Linear, heads: int, image: Tensor, positions: Tensor, offset: Tensor) -> None:
        self.weight = layer.weight
        self.image = _to_heads(linear(image, layer.weight), heads)
        self.positions = _to_heads(linear(positions + offset, layer.weight, layer.bias), heads)
        self.sum = self.image + self.positions

    def scores(self, few: Tensor, image: UpdatedImage, out: Tensor) -> Iterator[Tensor]:
        """Scores [heads, n, T] of one prompt after the other, of projected tokens [P, heads, n, D]; all in `out`."""
        few = few * few.shape[-1] ** -0.5
        if not image.updates:
            for tokens in few:
                yield torch.bmm(tokens, self.sum, out=out)
            return
        mixes = [
            (few @ split_heads(update.vectors @ self.weight.t(), few.shape[1]).transpose(-1, -2)).flatten(1, 2)
            for update in image.updates
        ]  # [P, heads * n, R] each
        rows = out.flatten(0, 1)
        for prompt, tokens in enumerate(few):
            torch.bmm(tokens, self.image, out=out)
            for update, mix in zip(image.updates, mixes, strict=True):
                _add_product(rows, mix[prompt], update.coefficients[prompt])
            rows.mul_(image.scale[prompt])
            yield torch.baddbmm(out, tokens, self.positions, out=out)


class _Read:
    """Prompt tokens attend to the image: what is the same for all of them."""

    def __init__(self, attention: Attention, image: Tensor, offset: Tensor, positions: Tensor) -> None:
        self.attention = attention
        self.key = _Projected(attention.k_proj, attention.heads, image, positions, offset)
        value = linear(image, attention.v_proj.weight)
        self.value = _to_heads(value, attention.heads).transpose(-1, -2).contiguous()  # [heads, T, D]
        self.value_bias = attention.v_proj(offset)

    def __call__(self, tokens: Tensor, image: UpdatedImage, scratch: _Scratch) -> Tensor:
        """[P, n, C] to [P, n, C]."""
        attention, updates = self.attention, image.updates
        q = split_heads(attention.q_proj(tokens), attention.heads)  # [P, heads, n, D]
        weights = scratch("weights", q, *q.shape[1:3], len(self.value[0]))
        attended = torch.empty_like(q)
        mixed = [q.new_empty(len(q), q.shape[1] * q.shape[2], update.vectors.shape[1]) for update in updates]
        for prompt, scores in enumerate(self.key.scores(q, image, scratch("scores", weights, *weights.shape))):
            torch.softmax(scores, dim=-1, out=weights)
            if updates:
                weights.mul_(image.scale[prompt])
            torch.bmm(weights, self.value, out=attended[prompt])
            for update, mix in zip(updates, mixed, strict=True):
                torch.mm(weights.flatten(0, 1), update.coefficients[prompt].t(), out=mix[prompt])
        for update, mix in zip(updates, mixed, strict=True):
            vectors = split_heads(update.vectors @ attention.v_proj.weight.t(), attention.heads)  # [P, heads, R, D]
            attended += mix.unflatten(1, q.shape[1:3]) @ vectors
        return attention.out_proj(merge_heads(attended) + self.value_bias)


class _Write:
    """The image attends to prompt tokens and is normalized: what is the same for all of them.

    Attributes:
        tokens: [T, C], the shared tokens after it.
        offset: [C], the constant after it.
    """

    def __init__(
        self, block: TwoWayBlock, image: Tensor, offset: Tensor, positions: Tensor, earlier: tuple[_Write, ...]
    ) -> None:
        self.attention = attention = block.cross_attn_image_to_token
        self.norm = block.norm4
        self.query = _Projected(attention.q_proj, attention.heads, image, positions, offset)
        self.shift = centered(offset + attention.out_proj.bias)
        moved = centered(image)
        self.square = moved.square().sum(dim=1)
        self.tokens, self.offset = moved * self.norm.weight, self.norm.bias
        # Products of the shared tokens with the vectors of the earlier blocks, as they are by now, and of this one.
        self.products: tuple[tuple[Tensor, Tensor], ...] = ()
        for write in (self, *reversed(earlier)):
            if write is not self:
                moved = centered(moved * write.norm.weight)
            heads = _to_heads(linear(moved, write.attention.out_proj.weight.t().contiguous()), attention.heads)
            self.products = ((heads, moved @ write.shift), *self.products)

    def __call__(self, keys: Tensor, values: Tensor, image: UpdatedImage, scratch: _Scratch) -> UpdatedImage:
        """Tokens [P, n, C] into the image."""
        attention, heads = self.attention, self.attention.heads
        k, v = (split_heads(x, heads) for x in (attention.k_proj(keys), attention.v_proj(values)))  # [P, heads, n, D]
        updates = image.updates
        shape = (heads, k.shape[2], len(self.square))
        coefficients = scratch(f"coefficients of block {len(updates)}", k, len(k), *shape)
        for prompt, scores in enumerate(self.query.scores(k, image, scratch("scores", k, *shape))):
            torch.softmax(scores, dim=1, out=coefficients[prompt])
        # The coefficients of a head sum to one, so that adding to its vectors adds to every token.
        vectors = centered(v @ attention.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0))
        vectors[:, 0] += self.shift
        update = Update(coefficients.flatten(1, 2), vectors.flatten(1, 2), v)
        update.coefficients.div_(image.scale[:, None])
        earlier = tuple(one._replace(vectors=centered(one.vectors)) for one in updates)
        return self._normalized(image.scale, (*earlier, update), scratch)

    def _normalized(self, scale: Tensor, updates: tuple[Update, ...], scratch: _Scratch) -> UpdatedImage:
        """LayerNorm of what is centered already."""
        squares = self.square.expand(len(scale), -1).clone()  # |shared + updates|^2 of each token, [P, T]
        for index, (update, (heads, row)) in enumerate(zip(updates, self.products, strict=True)):
            grams = [update.vectors @ other.vectors.transpose(-1, -2) for other in updates[: index + 1]]
            product = scratch("scores", scale, *update.values.shape[1:3], len(row))
            rows = product.flatten(0, 1)
            for prompt, values in enumerate(update.values):
                torch.bmm(values, heads, out=product)
                product[0] += row
                for other, gram in zip(updates[:index], grams, strict=False):
                    _add_product(rows, gram[prompt], other.coefficients[prompt])
                _add_product(rows, grams[-1][prompt], update.coefficients[prompt], times=2)
                squares[prompt] += rows.mul_(update.coefficients[prompt]).sum(dim=0)
        variance = squares.mul_(scale.square()).div_(len(self.norm.weight))
        vectors = (update._replace(vectors=update.vectors * self.norm.weight) for update in updates)
        return UpdatedImage(scale * torch.rsqrt(variance + self.norm.eps), tuple(vectors))


class SharedImage:
    """One image, multiplied by all that many prompts will multiply it by.

    It holds scratch memory, so that it serves one thread, and one batch of prompts at a time: what
    `transform` returns is overwritten by the next call.
    """

    def __init__(self, transformer: TwoWayTransformer, image: ImageTokens, weight: Tensor, bias: Tensor) -> None:
        """Multiply.

        Args:
            transformer: of the mask decoder.
            image: in one part of one image, [1, T, C].
            weight, bias: [D, C] and [D] of the linear layer that follows the transformer.
        """
        self.transformer = transformer
        self.detail = image.detail
        tokens, positions = image.parts[0][0], image.positions
        offset = tokens.new_zeros(tokens.shape[1])
        self.blocks = [cast(TwoWayBlock, layer) for layer in transformer.layers]
        self.reads: list[_Read] = []
        self.writes: list[_Write] = []
        for block in self.blocks:
            self.reads.append(_Read(block.cross_attn_token_to_image, tokens, offset, positions))
            self.writes.append(_Write(block, tokens, offset, positions, tuple(self.writes)))
            tokens, offset = self.writes[-1].tokens, self.writes[-1].offset
        self.last_read = _Read(transformer.final_attn_token_to_image, tokens, offset, positions)
        self.weight = weight
        self.rows = linear(tokens, weight)
        self.bias = F.linear(offset, weight, bias)
        self.scratch = _Scratch()

    def transform(self, prompt_tokens: Tensor) -> tuple[Tensor, FinishedImage]:
        """`TwoWayTransformer.forward` for P prompts: [P, n, C] to the tokens and the image after it."""
        tokens, image = prompt_tokens, UpdatedImage(prompt_tokens.new_ones(len(prompt_tokens), len(self.rows)), ())
        for block, read, write in zip(self.blocks, self.reads, self.writes, strict=True):
            tokens = block.attend_to_prompt(tokens, prompt_tokens)
            tokens = block.norm2(tokens + read(tokens + prompt_tokens, image, self.scratch))
            tokens = block.norm3(tokens + block.mlp(tokens))
            image = write(tokens + prompt_tokens, tokens, image, self.scratch)
        attended = self.last_read(tokens + prompt_tokens, image, self.scratch)
        return self.transformer.norm_final_attn(tokens + attended), FinishedImage(self, image)


def centered(x: Tensor) -> Tensor:
    """Without the mean over the channels."""
    return x - x.mean(dim=-1, keepdim=True)


def _to_heads(projected: Tensor, heads: int) -> Tensor:
    """[T, heads * D] to [heads, D, T]."""
    return projected.t().unflatten(0, (heads, -1)).contiguous()


def _add_product(rows: Tensor, left: Tensor, right: Tensor, times: float = 1) -> None:
    """Set rows to times * rows + left @ right. `addmm_` takes twice the time of this."""
    rows[None].baddbmm_(left[None], right[None], beta=times)
