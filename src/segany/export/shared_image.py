"""An image shared by many prompts, as two graphs: what is multiplied once, and what each prompt does with it.

The arithmetic is that of `models.sam.shared_image`, which says why it is right. There one prompt goes after the
other through memory that stays in the cache; here all prompts are one batch, as runtimes want it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segany.models.promptable import PromptableModel
from segany.models.sam.mask_decoder import arrange_detail, upscale_and_project
from segany.models.sam.shared_image import SharedImage, centered
from segany.models.sam.two_way_transformer import Attention, HighResFeatures, ImageTokens, TwoWayBlock
from segany.nn.attention import merge_heads, split_heads


class SharedImageGraph(nn.Module):
    """The features of an image, each with an axis of 1, to all that prompts will need of it: `image_tensors`."""

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = model
        prompt_encoder, _ = model.heads()
        self.register_buffer("positions", prompt_encoder.image_positions().detach())

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return tuple(image_tensors(self.share(features)).values())

    def share(self, features: Sequence[Tensor]) -> SharedImage:
        prompt_encoder, mask_decoder = self.model.heads()
        tokens = (features[0] + prompt_encoder.encode_no_mask()).flatten(2).transpose(1, 2)
        detail = arrange_detail(features[1][0], features[2][0]) if len(features) > 1 else None
        return mask_decoder.prepare(ImageTokens((tokens,), self.get_buffer("positions"), detail))


def image_tensors(shared: SharedImage) -> dict[str, Tensor]:
    """What of a shared image depends on the image, by name, with an axis of 1 where it would have none for prompts."""
    tensors: dict[str, Tensor] = {}
    for index, read in enumerate((*shared.reads, shared.last_read)):
        tensors |= {f"key_{index}": read.key.image, f"value_{index}": read.value}
    for index, write in enumerate(shared.writes):
        tensors |= {f"query_{index}": write.query.image, f"square_{index}": write.square}
        for earlier, (heads, row) in enumerate(write.products):
            tensors |= {f"product_{index}_{earlier}": heads, f"row_{index}_{earlier}": row}
    tensors["rows"] = shared.rows
    if shared.detail is not None:
        tensors |= {"detail_half": shared.detail.half, "detail_quarter": shared.detail.quarter}
    return tensors


class _Update(NamedTuple):
    """As `models.sam.shared_image.Update`."""

    coefficients: Tensor
    vectors: Tensor
    values: Tensor


class ProposalsGraph(nn.Module):
    """Prompts without masks on a shared image to three masks each."""

    def __init__(self, model: PromptableModel, shared: SharedImage) -> None:
        """Keep what depends on weights alone.

        Args:
            model: the model.
            shared: any image.
        """
        super().__init__()
        self.model = model
        self.names = tuple(image_tensors(shared))
        constants = {"weight": shared.weight, "bias": shared.bias}
        for index, read in enumerate((*shared.reads, shared.last_read)):
            constants |= {f"key_positions_{index}": read.key.positions, f"value_bias_{index}": read.value_bias}
        for index, write in enumerate(shared.writes):
            constants |= {f"query_positions_{index}": write.query.positions, f"shift_{index}": write.shift}
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            inputs: points [P, N, 2] in pixels of the model's input; labels [P, N]; `image_tensors`.

        Returns:
            Low-res logits [P, 3, 4h, 4w] and predicted IoU [P, 3].
        """
        points, labels, *tensors = inputs
        image = dict(zip(self.names, tensors, strict=True))
        prompt_encoder, mask_decoder = self.model.heads()
        prompts = prompt_encoder.encode_points(points, labels)
        own = mask_decoder.output_tokens().expand(prompts.shape[0], -1, -1)
        tokens, rows = self._transform(torch.cat([own, prompts], dim=1), image)
        decoded = mask_decoder.read_tokens(tokens, (rows,), multimask=True)
        detail = HighResFeatures(image["detail_half"], image["detail_quarter"]) if "detail_half" in image else None
        return upscale_and_project(mask_decoder.output_upscaling, [rows], decoded.mask_weights, detail), decoded.iou

    def _transform(self, prompt_tokens: Tensor, image: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`SharedImage.transform`: [P, n, C] to the tokens after it, and to the rows [P, T, 4, D / 4] that follow."""
        _, mask_decoder = self.model.heads()
        transformer = mask_decoder.transformer
        scale, updates = torch.ones_like(image["square_0"])[None], list[_Update]()
        tokens = prompt_tokens
        for index, block in enumerate(transformer.layers):
            assert isinstance(block, TwoWayBlock)
            tokens = block.attend_to_prompt(tokens, prompt_tokens)
            attention = block.cross_attn_token_to_image
            tokens = block.norm2(tokens + self._read(index, attention, tokens + prompt_tokens, scale, updates, image))
            tokens = block.norm3(tokens + block.mlp(tokens))
            scale, updates = self._write(index, block, tokens + prompt_tokens, tokens, scale, updates, image)
        last = transformer.final_attn_token_to_image
        attended = self._read(len(transformer.layers), last, tokens + prompt_tokens, scale, updates, image)
        coefficients = torch.cat([update.coefficients for update in updates], dim=1)  # [P, R, T]
        vectors = torch.cat([update.vectors for update in updates], dim=1)  # [P, R, C]
        rows = coefficients.transpose(1, 2) @ (vectors @ self.get_buffer("weight").t()) + image["rows"]
        rows = rows * scale[..., None] + self.get_buffer("bias")
        return transformer.norm_final_attn(tokens + attended), rows.unflatten(2, (4, -1))

    def _read(
        self,
        index: int,
        attention: Attention,
        tokens: Tensor,
        scale: Tensor,
        updates: Sequence[_Update],
        image: Mapping[str, Tensor],
    ) -> Tensor:
        """Tokens [P, n, C] attend to the image: [P, n, C]."""
        few = split_heads(attention.q_proj(tokens), attention.heads)  # [P, heads, n, D]
        positions = self.get_buffer(f"key_positions_{index}")
        scores = _scores(few, image[f"key_{index}"], positions, attention.k_proj, scale, updates)
        weights = torch.softmax(scores, dim=-1) * scale[:, None, None]  # [P, heads, n, T]
        attended = weights @ image[f"value_{index}"]
        for update in updates:
            mix = weights.flatten(1, 2) @ update.coefficients.transpose(1, 2)
            vectors = split_heads(update.vectors @ attention.v_proj.weight.t(), attention.heads)
            attended = attended + mix.unflatten(1, few.shape[1:3]) @ vectors
        out: Tensor = attention.out_proj(merge_heads(attended) + self.get_buffer(f"value_bias_{index}"))
        return out

    def _write(
        self,
        index: int,
        block: TwoWayBlock,
        keys: Tensor,
        values: Tensor,
        scale: Tensor,
        updates: Sequence[_Update],
        image: Mapping[str, Tensor],
    ) -> tuple[Tensor, list[_Update]]:
        """The image attends to tokens [P, n, C] and is normalized: its scale [P, T] and updates from then on."""
        attention = block.cross_attn_image_to_token
        few, made = (split_heads(x, attention.heads) for x in (attention.k_proj(keys), attention.v_proj(values)))
        positions = self.get_buffer(f"query_positions_{index}")
        scores = _scores(few, image[f"query_{index}"], positions, attention.q_proj, scale, updates)
        coefficients = torch.softmax(scores, dim=2) / scale[:, None, None]
        by_head = attention.out_proj.weight.unflatten(1, (attention.heads, -1)).permute(1, 2, 0)
        vectors = _add_to_first(centered(made @ by_head), self.get_buffer(f"shift_{index}"))
        earlier = [update._replace(vectors=centered(update.vectors)) for update in updates]
        every = [*earlier, _Update(coefficients.flatten(1, 2), vectors.flatten(1, 2), made)]
        squares = image[f"square_{index}"]
        for number, update in enumerate(every):
            product = update.values @ image[f"product_{index}_{number}"]
            rows = _add_to_first(product, image[f"row_{index}_{number}"]).flatten(1, 2)
            for other in every[:number]:
                rows = rows + (update.vectors @ other.vectors.transpose(1, 2)) @ other.coefficients
            rows = 2 * rows + (update.vectors @ update.vectors.transpose(1, 2)) @ update.coefficients
            squares = squares + (rows * update.coefficients).sum(dim=1)
        variance = squares * scale.square() / len(block.norm4.weight)
        updated = [update._replace(vectors=update.vectors * block.norm4.weight) for update in every]
        return scale * torch.rsqrt(variance + block.norm4.eps), updated


def _scores(
    few: Tensor, image: Tensor, positions: Tensor, layer: nn.Linear, scale: Tensor, updates: Sequence[_Update]
) -> Tensor:
    """Scores [P, heads, n, T] of projected tokens [P, heads, n, D] and the image with its positions, [heads, D, T]."""
    few = few * few.shape[-1] ** -0.5
    if not updates:
        return few @ (image + positions)
    scores = few @ image
    for update in updates:
        projected = split_heads(update.vectors @ layer.weight.t(), few.shape[1]).transpose(-1, -2)
        mix = (few @ projected).flatten(1, 2) @ update.coefficients
        scores = scores + mix.unflatten(1, few.shape[1:3])
    return scores * scale[:, None, None] + few @ positions


def _add_to_first(by_head: Tensor, row: Tensor) -> Tensor:
    """Add to the first head of [P, heads, ...]."""
    return torch.cat([by_head[:, :1] + row, by_head[:, 1:]], dim=1)
