from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.models_for_tests import SMALL_TINY_VIT, seed_weights, small_sam, small_sam2
from torch import nn

import segany
from segany.core.errors import ConfigError, TrainingError
from segany.models.promptable import PromptableModel
from segany.models.registry import find_spec
from segany.train.adapters import AdapterConfig, adapter_layers, add_adapters, merge_adapters, merged_copy

BUILDERS = {"vit": small_sam, "tiny_vit": lambda: small_sam(SMALL_TINY_VIT), "hiera": small_sam2}

Build = Callable[[], PromptableModel]


@pytest.fixture(params=list(BUILDERS))
def build(request: pytest.FixtureRequest) -> Build:
    return BUILDERS[request.param]  # type: ignore[no-any-return]


def _pixels(model: PromptableModel, seed: int = 0) -> torch.Tensor:
    side = model.preprocessing.input_size
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _train(model: PromptableModel, steps: int = 3) -> None:
    """Some steps towards features of zero, large enough to move outputs by more than rounding."""
    trained = [parameter for parameter in model.image_encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model.encode_features(_pixels(model))[0].square().mean().backward()
        optimizer.step()


def _assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("target", ["attention", "all"])
def test_adapters_train_alone_and_merge_exactly(build: Build, target: str) -> None:
    model = build()
    pixels = _pixels(model, 1)
    names = list(model.state_dict())
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    untrained_id = model.encoder_id
    before = [feature.detach() for feature in model.encode_features(pixels)]

    assert add_adapters(model, AdapterConfig(rank=4, target=target)) is model  # type: ignore[arg-type]
    for ours, theirs in zip(model.encode_features(pixels), before, strict=True):
        _assert_same(ours, theirs)  # B is zero

    _train(model)
    with_gradients = {name for name, value in model.image_encoder.named_parameters() if value.grad is not None}
    assert with_gradients == {name for name, _ in model.image_encoder.named_parameters() if "lora_" in name}
    assert all(parameter.requires_grad for head in model.heads() for parameter in head.parameters())

    adapted = [feature.detach() for feature in model.encode_features(pixels)]
    assert float((adapted[0] - before[0]).abs().max()) > 0.01 * float(before[0].abs().max())

    layers = list(adapter_layers(model))
    assert merge_adapters(model) is model
    for ours, theirs in zip(model.encode_features(pixels), adapted, strict=True):
        _assert_same(ours, theirs)
    state = model.state_dict()
    assert list(state) == names
    changed = {name for name in names if not torch.equal(state[name], weights[name])}
    assert changed == {f"image_encoder.{layer}.weight" for layer in layers}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.encoder_id != untrained_id


def test_merged_models_run_the_forms_for_inference(build: Build) -> None:
    model = add_adapters(build(), AdapterConfig(target="all"))
    _train(model)
    pixels = _pixels(model, 1)
    with torch.inference_mode():
        adapted = model.encode_features(pixels)[0]
    merge_adapters(model)
    assert not adapter_layers(model)
    originals = dict(build().image_encoder.named_modules())
    for name, layer in model.image_encoder.named_modules():
        assert type(layer) is type(originals[name])
    plain = model.encode_features(pixels)[0].detach()
    with torch.inference_mode():
        fast = model.encode_features(pixels)[0]
    _assert_same(fast, plain)
    _assert_same(fast, adapted)


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("vit", "attention", {"attn.qkv", "attn.proj"}),
        ("vit", "all", {"attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"}),
        ("tiny_vit", "attention", {"attn.qkv", "attn.proj"}),
        ("tiny_vit", "all", {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
        ("hiera", "attention", {"attn.qkv", "attn.proj"}),
    ],
)
def test_targets(name: str, target: str, expected: set[str]) -> None:
    model = add_adapters(BUILDERS[name](), AdapterConfig(target=target))  # type: ignore[arg-type, no-untyped-call]
    layers = adapter_layers(model)
    assert {".".join(layer.split(".")[-2:]) for layer in layers} == expected
    names = [name for name, _ in model.image_encoder.named_modules()]
    attending = {name.removesuffix(".attn.qkv") for name in names if name.endswith(".attn.qkv")}
    assert {layer.rsplit(".", 2)[0] for layer in layers} == attending  # every block that attends
    assert all(isinstance(layer.get_base_layer(), nn.Linear) for layer in layers.values())


def test_adapters_start_the_same_whatever_was_drawn_before() -> None:
    states = []
    for seed in (1, 2):
        model = small_sam()
        torch.manual_seed(seed)
        state_before = torch.random.get_rng_state()
        add_adapters(model, AdapterConfig(seed=5))
        assert torch.equal(torch.random.get_rng_state(), state_before)
        states.append({key: value for key, value in model.state_dict().items() if "lora_A" in key})
    assert states[0]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = add_adapters(small_sam(), AdapterConfig(seed=6)).state_dict()
    assert not any(torch.equal(value, other[key]) for key, value in states[0].items())


def test_dropout_is_for_training_alone() -> None:
    model = add_adapters(small_sam(), AdapterConfig(dropout=0.5))
    _train(model.eval())
    pixels = _pixels(model)
    once, again = (model.encode_features(pixels)[0] for _ in range(2))
    assert torch.equal(once, again)
    model.train()
    assert not torch.equal(model.encode_features(pixels)[0], again)


def test_merged_checkpoint_loads(tmp_path: Path) -> None:
    model = find_spec("mobile_sam").build()
    seed_weights(model)
    add_adapters(model)
    for name, parameter in model.image_encoder.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.01)
    merge_adapters(model)
    path = tmp_path / "tuned.safetensors"
    save_file(model.state_dict(), path)
    loaded = segany.load(path, device="cpu")
    assert loaded.name == "mobile_sam"
    assert loaded.encoder_id == model.encoder_id


def test_merged_copy_leaves_the_training_alone() -> None:
    model = small_sam()
    assert merged_copy(model) is model
    add_adapters(model)
    _train(model)
    pixels = _pixels(model, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = merged_copy(model)
    assert list(copy.state_dict()) == list(small_sam().state_dict())
    _assert_same(copy.encode_image(pixels), model.encode_image(pixels))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_adapters_are_not_stacked() -> None:
    model = add_adapters(small_sam())
    with pytest.raises(TrainingError, match="already"):
        add_adapters(model)
    merge_adapters(add_adapters(merge_adapters(model)))
    merge_adapters(model)  # nothing left to do


@pytest.mark.parametrize(
    ("field", "value"), [("rank", 0), ("alpha", 0.0), ("dropout", 1.0), ("dropout", -0.1), ("target", "mlp")]
)
def test_config_refuses(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        AdapterConfig(**{field: value})  # type: ignore[arg-type]
