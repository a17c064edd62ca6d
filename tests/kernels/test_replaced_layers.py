"""Layers that a program replaces or hooks are called: no fast form uses the weights of the old ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.models_for_tests import SMALL_TINY_VIT, loaded, small_sam, small_sam2
from torch import Tensor, nn

import segany
from segany.models.promptable import PromptableModel

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
MODELS: dict[str, Callable[[], PromptableModel]] = {
    "vit": small_sam,
    "tiny_vit": lambda: small_sam(SMALL_TINY_VIT),
    "hiera": small_sam2,
}


class LowRank(nn.Module):
    """A low-rank adapter as programs write it: neither `weight` nor `bias`."""

    def __init__(self, base: nn.Module, channels_in: int, channels_out: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(channels_in)
        self.base, self.calls = base, 0
        self.down = nn.Linear(channels_in, 4, bias=False)
        self.up = nn.Linear(4, channels_out, bias=False)
        with torch.no_grad():
            for layer in (self.down, self.up):
                layer.weight.copy_(0.1 * torch.randn(layer.weight.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.base(x) + self.up(self.down(x))
        return out


def replace_linear(module: nn.Module, *, merge: bool) -> list[LowRank]:
    """Replace all linear layers by adapters, or add the adapters to their weights."""
    adapters = []
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Linear) or isinstance(parent, LowRank):
                continue
            adapter = LowRank(layer, layer.in_features, layer.out_features)
            adapters.append(adapter)
            if merge:
                with torch.no_grad():
                    layer.weight += adapter.up.weight @ adapter.down.weight
            elif isinstance(parent, (nn.ModuleList, nn.Sequential)):
                parent[int(name)] = adapter
            else:
                setattr(parent, name, adapter)
    return adapters


def outputs(model: PromptableModel) -> list[np.ndarray]:
    predictor = segany.ImagePredictor(loaded(model))
    embedding = predictor.embed(IMAGE)
    prompts = [segany.Prompt(points_xy=[[60, 40]]), segany.Prompt(box_xyxy=[10, 10, 90, 80])]
    low_res, scores, _ = predictor.predict_low_res(embedding, prompts)  # three candidates, and one
    config = segany.AutomaticConfig(points_per_side=1, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    found = segany.AutomaticMaskGenerator(predictor.model, config).generate(IMAGE)
    low_res, scores = (np.maximum(x, -1e3) for x in (low_res, scores))  # -inf where there is no candidate
    return [*embedding.features, low_res, scores, found.scores]


@pytest.mark.parametrize("name", MODELS)
def test_replaced_layers_are_not_bypassed(name: str) -> None:
    adapted, merged = MODELS[name](), MODELS[name]()
    adapters = replace_linear(adapted, merge=False)
    replace_linear(merged, merge=True)
    for one, other in zip(outputs(adapted), outputs(merged), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * max(1, np.abs(other).max()))
    parts = [part for part in (*adapted.feature_parts(), *adapted.heads()) if isinstance(part, nn.Module)]
    used = [x for part in parts for x in part.modules() if isinstance(x, LowRank)]
    assert all(adapter.calls for adapter in used)
    assert name == "hiera" or len(used) == len(adapters)


def test_replaced_layers_of_the_memory_are_not_bypassed() -> None:
    def track(*, merge: bool) -> np.ndarray:
        model = small_sam2()
        for part in (model.memory_attention, model.memory_encoder, model.obj_ptr_proj):
            replace_linear(part, merge=merge)
        with segany.VideoPredictor(loaded(model)).open([IMAGE, IMAGE[:, ::-1].copy()]) as session:
            session.prompt(frame=0, object_id=1, prompt=segany.Prompt(points_xy=[[60, 40]]))
            found = [result.mask_logits for result in session.propagate(logits=True)]
        return np.stack([logits for logits in found if logits is not None])

    expected = track(merge=True)
    np.testing.assert_allclose(track(merge=False), expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_replaced_convolutions_are_not_bypassed(name: str) -> None:
    class Twice(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)

    def changed(*, wrap: bool) -> PromptableModel:
        model = MODELS[name]()
        upscaling: Any = model.heads()[1].output_upscaling
        places = [(upscaling, 0), (upscaling, 3)]
        if name == "hiera":
            places += [(conv, "conv") for conv in model.image_encoder.neck.convs]  # type: ignore[misc, union-attr]
        for parent, key in places:
            layer = parent[key] if isinstance(key, int) else getattr(parent, key)
            if wrap and isinstance(key, int):
                parent[key] = Twice(layer)
            elif wrap:
                setattr(parent, key, Twice(layer))
            else:
                with torch.no_grad():
                    layer.weight *= 2
                    layer.bias *= 2
        return model

    for one, other in zip(outputs(changed(wrap=True)), outputs(changed(wrap=False)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("name", MODELS)
def test_hooks_fire_once_for_an_image(name: str) -> None:
    model = MODELS[name]()
    expected = outputs(model)
    counts: dict[str, int] = {}

    def count(module_name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            counts[module_name] = counts.get(module_name, 0) + 1

        return hook

    blocks = {id(block): index for index, block in enumerate(model.image_encoder.encoder_blocks())}
    for module in model.image_encoder.modules():
        if id(module) in blocks:
            for part_name, part in module.named_modules():
                part.register_forward_hook(count(f"{blocks[id(module)]}.{part_name}"))
    predictor = segany.ImagePredictor(loaded(model))
    embedding = predictor.embed(IMAGE)
    np.testing.assert_allclose(embedding.features[0], expected[0], atol=1e-3)
    seen = {name: count for name, count in counts.items() if ".attn" in name or name.endswith(".")}
    assert {name for name in seen if name.endswith(".")} == {f"{index}." for index in blocks.values()}
    assert set(seen.values()) == {1}


def test_hooks_of_the_decoder_fire_once_for_a_batch() -> None:
    model = small_sam()
    predictor = segany.ImagePredictor(loaded(model))
    embedding = predictor.embed(IMAGE)
    prompts = [segany.Prompt(points_xy=[[60, 40]]), segany.Prompt(points_xy=[[30, 20]])]
    expected = predictor.predict(embedding, prompts)
    calls: list[str] = []
    transformer = model.mask_decoder.transformer
    for name, part in transformer.named_modules():
        if name.endswith(("attn", "image_to_token", "token_to_image")) or name.rpartition(".")[0] == "layers":
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    prediction = predictor.predict(embedding, prompts)
    np.testing.assert_allclose(prediction.low_res_logits, expected.low_res_logits, atol=1e-3)
    assert sorted(calls) == sorted(set(calls))
    assert len(calls) == 2 * 4 + 2  # of the blocks; the last attention and its norm
