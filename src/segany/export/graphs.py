"""The graphs to export, as modules whose inputs and outputs are tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.core.arrays import MASK_THRESHOLD
from segany.core.preprocessing import Preprocessing
from segany.export.shared_image import ProposalsGraph, SharedImageGraph, image_products
from segany.models.promptable import PromptableModel
from segany.models.sam.mask_decoder import arrange_high_res
from segany.models.sam.two_way_transformer import ImageTokens
from segany.models.sam2.model import Sam2
from segany.models.sam2.tracking import FrameFeatures


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that is exported to one file.

    Attributes:
        name: name of the file without its suffix.
        module: the module to export.
        inputs: example inputs by name, in order.
        outputs: names of the outputs.
        dynamic: names of the dynamic axes of the inputs, by input name and axis.
        output_axes: names of the dynamic axes of the outputs.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    output_axes: dict[str, dict[int, str]] = field(default_factory=dict)


def make_graphs(model: PromptableModel) -> list[Graph]:
    """Make all graphs of a model: encoder, decoder, two graphs for automatic masks, and the memory of SAM 2."""
    size = model.preprocessing.input_size
    pixels = torch.zeros(1, 3, size, size)
    with torch.inference_mode():
        features = tuple(feature.clone() for feature in model.encode_features(pixels))
    names = model.feature_names
    graphs = [
        Graph("encoder", EncoderGraph(model), {"pixels": pixels}, names),
        _decoder(model, names, features),
        *_proposals(model, names, features),
    ]
    if model.has_memory:
        tracking = cast(Sam2, model)
        graphs += [_memory_encoder(tracking, features[0]), _memory_attention(tracking, features[0])]
    return graphs


def _decoder(model: PromptableModel, names: Sequence[str], features: Sequence[Tensor]) -> Graph:
    side = model.low_res_size
    inputs = dict(zip(names, features, strict=True)) | {
        "points": _example_points(2, 3, model),
        "labels": torch.tensor([[1, 0, -1], [2, 3, -1]]),
        "mask_logits": torch.zeros(2, side, side),
        "has_mask": torch.tensor([False, True]),
        "candidates": torch.tensor([1, 2, 3]),
        "size_hw": torch.tensor([60, 80]),
    }
    dynamic = {
        "points": {0: "prompts", 1: "points"},
        "labels": {0: "prompts", 1: "points"},
        "mask_logits": {0: "prompts"},
        "has_mask": {0: "prompts"},
        "candidates": {0: "candidates"},
    }
    candidates = {0: "prompts", 1: "candidates"}
    axes = {"low_res": candidates, "iou": candidates, "mask_logits_at_size": candidates | {2: "height", 3: "width"}}
    if model.has_memory:
        axes |= {"object_scores": {0: "prompts"}, "object_pointers": candidates}
    return Graph("decoder", DecoderGraph(model), inputs, tuple(axes), dynamic, axes)


def _example_points(prompts: int, points: int, model: PromptableModel) -> Tensor:
    """Points [P, N, 2] inside the model's input, which do not depend on the global random state, nor change it."""
    values = torch.rand(prompts, points, 2, generator=torch.Generator().manual_seed(0))
    return values * model.preprocessing.input_size


def _proposals(model: PromptableModel, names: Sequence[str], features: Sequence[Tensor]) -> list[Graph]:
    module = SharedImageGraph(model)
    with torch.no_grad():
        shared = module.share(features)
    tensors = {name: tensor.clone() for name, tensor in image_products(shared).items()}
    prompts = {
        "points": _example_points(3, 2, model),
        "labels": torch.tensor([[1, -1], [1, -1], [0, -1]]),
    }
    axes = {name: {0: "prompts"} for name in prompts}
    outputs = {name: {0: "prompts"} for name in ("low_res", "iou")}
    return [
        Graph("shared_image", module, dict(zip(names, features, strict=True)), tuple(tensors)),
        Graph("proposals", ProposalsGraph(model, shared), prompts | tensors, tuple(outputs), axes, outputs),
    ]


def _memory_encoder(model: Sam2, embedding: Tensor) -> Graph:
    inputs = {
        "image_embedding": embedding,
        "low_res": torch.zeros(2, model.low_res_size, model.low_res_size),
        "object_scores": torch.zeros(2),
        "prompted": torch.tensor([False, True]),
    }
    dynamic = {name: {0: "objects"} for name in ("low_res", "object_scores", "prompted")}
    return Graph("memory_encoder", MemoryEncoderGraph(model), inputs, ("memory",), dynamic, {"memory": {0: "objects"}})


def _memory_attention(model: Sam2, embedding: Tensor) -> Graph:
    channels = model.config.memory.channels
    inputs = {
        "image_embedding": embedding,
        "memories": torch.zeros(2, channels, *embedding.shape[2:]),
        "maskmem_tpos": torch.tensor([0, 6]),
        "pointers": torch.zeros(3, embedding.shape[1]),
        "pointer_tpos": torch.zeros(3),
    }
    dynamic = {"memories": {0: "memories"}, "maskmem_tpos": {0: "memories"}}
    dynamic |= {"pointers": {0: "pointers"}, "pointer_tpos": {0: "pointers"}}
    return Graph("memory_attention", MemoryAttentionGraph(model), inputs, ("conditioned",), dynamic)


class EncoderGraph(nn.Module):
    """Encodes pixels [1, 3, S, S] from `preprocess` to the features of an embedding, with a batch axis of 1."""

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_features(pixels)


class DecoderGraph(nn.Module):
    """Decodes prompts on one image to masks, in low resolution and at the size of the image."""

    def __init__(self, model: PromptableModel) -> None:
        super().__init__()
        self.model = model
        prompt_encoder, _ = model.heads()
        self.register_buffer("positions", prompt_encoder.image_positions().detach())
        self.upscaler = Upscaler(model.preprocessing, model.low_res_size)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Decode prompts.

        Args:
            inputs: the features with a batch axis of 1; points [P, N, 2] in pixels of the model's input; labels int64
                [P, N]; mask logits [P, 4h, 4w]; has_mask bool [P], whether a prompt has mask logits; candidates int64
                [M], the candidates to predict, 0 for the single mask and 1 to 3 for the multimask outputs; size_hw
                int64 [2], height and width of the image.

        Returns:
            Low-res logits [P, M, 4h, 4w], predicted IoU [P, M], logits at the size of the image [P, M, H, W]; for SAM 2
            also object scores [P] and object pointers [P, M, C].
        """
        *features, points, labels, mask_logits, has_mask, candidates, size_hw = inputs
        prompt_encoder, mask_decoder = self.model.heads()
        given = self.model.encode_masks(mask_logits)
        dense = torch.where(has_mask[:, None, None, None], given, prompt_encoder.encode_no_mask())
        high_res_features = arrange_high_res(features[1][0], features[2][0]) if len(features) > 1 else None
        tokens = (features[0] + dense).flatten(2).transpose(1, 2)
        image = ImageTokens(tokens, self.get_buffer("positions"), high_res_features)
        found = mask_decoder.all_candidates(image, prompt_encoder.encode_points(points, labels))
        low_res, iou = (x.index_select(1, candidates) for x in (found.low_res, found.iou))
        outputs = (low_res, iou, self.upscaler(low_res, size_hw))
        if not self.model.has_memory:
            return outputs
        scores, pointers = cast(Sam2, self.model).identify(found.tokens)
        return *outputs, scores, pointers.index_select(1, candidates)


class Upscaler(nn.Module):
    """Computes `upscale_logits` by matrix multiplication, for an image size that is a tensor.

    Two interpolations would need data-dependent sizes, which runtimes handle differently. The crop between the two
    interpolations is part of the weights, which are zero outside the crop.
    """

    def __init__(self, preprocessing: Preprocessing, side: int) -> None:
        super().__init__()
        self.input_size, self.side = preprocessing.input_size, side
        self.crops = preprocessing.resize == "longest_side"
        if self.crops:
            indices = torch.arange(self.input_size)
            self.register_buffer("first_step", _bilinear(indices, side, self.input_size, torch.tensor(side)))

    def forward(self, low_res: Tensor, size_hw: Tensor) -> Tensor:
        """Upscale logits [P, M, h, w] to the size int64 [2]: [P, M, H, W]."""
        rows, columns = (self._weights(size_hw[axis], size_hw) for axis in (0, 1))
        return rows @ low_res @ columns.transpose(0, 1)

    def _weights(self, out: Tensor, size_hw: Tensor) -> Tensor:
        """Compute the interpolation matrix [out, side] of one axis."""
        count: Any = out.item()
        torch._check(count >= 1)
        indices = torch.arange(count)
        if not self.crops:
            return _bilinear(indices, self.side, out, torch.tensor(self.side))
        scale = self.input_size / size_hw.max().double()
        resized = (out.double() * scale + 0.5).floor().clamp(min=1).float()
        return _bilinear(indices, self.input_size, out, resized) @ self.get_buffer("first_step")


def _bilinear(indices: Tensor, side: int, out: int | Tensor, inside: Tensor) -> Tensor:
    """Compute the matrix [out, side] that interpolates the first `inside` of `side` samples bilinearly to `out`."""
    center = ((indices.float() + 0.5) * (inside / out) - 0.5).clamp(min=0)
    center = torch.minimum(center, inside - 1)
    return (1 - (center[:, None] - torch.arange(side).float()).abs()).clamp(min=0)


class MemoryEncoderGraph(nn.Module):
    """Encodes masks of O objects in one frame to memories [O, C_memory, h, w]."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_embedding: Tensor, low_res: Tensor, object_scores: Tensor, prompted: Tensor) -> Tensor:
        """Encode memories.

        Args:
            image_embedding: [1, C, h, w], from the encoder.
            low_res: mask logits [O, 4h, 4w] of the selected candidates.
            object_scores: [O], logits.
            prompted: bool [O], whether the object was prompted in this frame.

        Returns:
            [O, C_memory, h, w].
        """
        size = self.model.preprocessing.input_size
        logits = F.interpolate(low_res[:, None], (size, size), mode="bilinear", align_corners=False)
        hard = (logits > MASK_THRESHOLD).float()
        masks = torch.where(prompted[:, None, None, None], hard, logits.sigmoid())
        # Expand to all objects: OpenVINO does not broadcast the sum of one frame and several masks correctly.
        frame = frame_of(self.model, image_embedding.expand(low_res.shape[0], -1, -1, -1))
        return self.model.encode_mask_memory(frame, masks, object_scores)


class MemoryAttentionGraph(nn.Module):
    """Conditions a frame on the memories of one object: [1, C, h, w], an image embedding for the decoder."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image_embedding: Tensor, memories: Tensor, maskmem_tpos: Tensor, pointers: Tensor, pointer_tpos: Tensor
    ) -> Tensor:
        """Attend to the memories.

        Args:
            image_embedding: [1, C, h, w], from the encoder.
            memories: [K, C_memory, h, w], from the memory encoder.
            maskmem_tpos: int64 [K], temporal positions of the memories.
            pointers: [L, C], object pointers from the decoder; L may be 0.
            pointer_tpos: [L], temporal positions of the pointers.

        Returns:
            [1, C, h, w].
        """
        frame = frame_of(self.model, image_embedding)
        keys, values = self.model.memory_tokens(memories, maskmem_tpos, pointers, pointer_tpos)
        num_k_exclude_rope = pointers.shape[0] * (pointers.shape[1] // self.model.config.memory.channels)
        tokens = self.model.memory_attention.encode_frame(frame.image)
        conditioned: Tensor = self.model.memory_attention(tokens, keys[None], values[None], num_k_exclude_rope)
        by_channel: Tensor = conditioned.transpose(1, 2).unflatten(2, frame.image.shape[2:])
        return by_channel


def frame_of(model: Sam2, image_embedding: Tensor) -> FrameFeatures:
    """Convert an image embedding to frame features, without `no_mem_embed` and high-resolution features."""
    none = image_embedding[:0]
    return FrameFeatures(image_embedding - model.no_mem_embed.transpose(1, 2)[..., None], none, none)
