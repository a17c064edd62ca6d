"""A new image encoder is a config, a module and a registration: here it is all in this file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded
from tests.train.loop_for_tests import MemoryBatches
from tests.train.shape_items import shape_item
from torch import Tensor, nn
from typer.testing import CliRunner

import segany
from segany import ConfigError, Prompt
from segany.cli.app import app
from segany.export import to_onnx
from segany.kernels import optimize
from segany.models.configs import EncoderConfig, KeyRules, check_input_size, config_from_json, config_to_json, register
from segany.models.convert import encoder_id, read_checkpoint
from segany.models.image_encoder import ImageEncoder
from segany.models.model_file import save_model, saved_spec
from segany.models.promptable import PromptableModel
from segany.models.registry import MODELS, ModelSpec, UrlSource, build_model, register_model
from segany.models.sam.config import DecoderConfig, SamConfig
from segany.models.sam2.config import Sam2Config
from segany.runtime import OnnxModel
from segany.train.adapters import add_adapters, merge_adapters
from segany.train.blocks import blocks_of
from segany.train.distill import DistillConfig, DistillTask
from segany.train.init import initialize
from segany.train.loop import train
from segany.train.loop_config import LoopConfig
from segany.train.mae_task import MaeTask
from segany.train.parameters import parameter_groups
from segany.train.sam_recipe import SamRecipe
from segany.train.sam_task import SamTask

SIDE = 128


@register
@dataclass(frozen=True)
class ConvNetConfig(EncoderConfig):
    """Patches, and blocks of a 3 x 3 convolution and a linear layer."""

    title: ClassVar[str] = "ConvNet"
    key_rules: ClassVar[KeyRules] = (
        (r"backbone\.(.+)", r"image_encoder.\1"),
        (r"classifier\..+", None),
    )

    width: int = 16
    depth: int = 2
    input_size: int = SIDE
    out_channels: int = 32

    def __post_init__(self) -> None:
        check_input_size(self.input_size, 16)

    def build(self) -> ConvNet:
        return ConvNet(self)


class ConvBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.conv(x).permute(0, 2, 3, 1)
        return x + torch.relu(self.linear(mixed)).permute(0, 3, 1, 2)


class ConvNet(ImageEncoder):
    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, config.width, 16, stride=16)
        self.body = nn.Sequential(*(ConvBlock(config.width) for _ in range(config.depth)))
        self.head = nn.Conv2d(config.width, config.out_channels, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(self.stem(pixels)))

    def encoder_blocks(self) -> Sequence[nn.Module]:
        return list(self.body)

    def adapted_layers(self, target: str) -> list[str]:
        return [name for name, layer in self.named_modules() if isinstance(layer, nn.Linear)]


CONFIG = SamConfig(
    ConvNetConfig(),
    DecoderConfig(depth=1, heads=2, mlp_width=64, iou_head_width=32, cross_attention_width=16),
    mean_rgb=(0.0, 0.0, 0.0),
    std_rgb=(255.0, 255.0, 255.0),
)
RECIPE = SamRecipe(iterations=2, repeats=0, loss_side=32, drop_path=0.0)


@pytest.fixture
def model() -> PromptableModel:
    module = build_model(CONFIG, "convnet")
    initialize(module, 0)
    module.encoder_id = encoder_id(module.image_encoder)
    return optimize(module.eval())


@pytest.fixture
def _registered() -> Iterator[None]:
    """As a row of the table, for the time of a test."""
    spec = ModelSpec("convnet", "ConvNet SAM", CONFIG, (UrlSource("https://example.org/convnet.pt", None),), 1)
    register_model(spec)
    yield
    del MODELS["convnet"]


def image() -> np.ndarray:
    return shape_item(0, SIDE).image


def test_it_predicts(model: PromptableModel) -> None:
    predictor = segany.ImagePredictor(loaded(model))
    embedding = predictor.embed(image())
    assert embedding.features[0].shape == (32, 8, 8)
    assert predictor.predict(embedding, Prompt(points_xy=[[40, 50]])).masks.shape == (1, 3, SIDE, SIDE)
    config = segany.AutomaticConfig(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    segany.AutomaticMaskGenerator(loaded(model), config).generate(image())


def test_images_are_normalized_by_its_row(model: PromptableModel) -> None:
    pixels = loaded(model).processor.tensor([np.full((SIDE, SIDE, 3), 51, np.uint8)], model)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 0.2))


def test_a_file_of_it_loads_by_its_path(model: PromptableModel, tmp_path: Path) -> None:
    path = save_model(model, tmp_path / "convnet.safetensors")
    spec = saved_spec(path)
    assert spec is not None
    assert spec.config == CONFIG
    assert config_from_json(json.loads(json.dumps(config_to_json(CONFIG)))) == CONFIG
    again = segany.load(path, device="cpu")
    assert again.encoder_id == model.encoder_id
    for name, value in again.module.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])


@pytest.mark.usefixtures("_registered")
def test_it_is_listed_and_found_by_its_tensors(model: PromptableModel, tmp_path: Path) -> None:
    assert "convnet" in segany.list_models()
    assert "ConvNet SAM" in CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"}).stdout
    theirs = {key.replace("image_encoder.", "backbone."): value for key, value in model.state_dict().items()}
    torch.save(theirs | {"classifier.weight": torch.zeros(2)}, tmp_path / "theirs.pt")
    assert "backbone.stem.weight" in read_checkpoint(tmp_path / "theirs.pt")
    assert segany.load(tmp_path / "theirs.pt", device="cpu").encoder_id == model.encoder_id


@pytest.mark.usefixtures("_registered")
def test_weights_of_a_known_architecture_are_one_row(model: PromptableModel, tmp_path: Path) -> None:
    from segany.core.files import sha256_of

    torch.save(model.state_dict(), tmp_path / "other.pt")
    assert segany.load(tmp_path / "other.pt", device="cpu").name == "convnet"  # where the file says nothing, the first
    source = UrlSource("https://example.org/other.pt", sha256_of(tmp_path / "other.pt"))
    register_model(replace(MODELS["convnet"], name="other", sources=(source,)))
    try:
        assert segany.load(tmp_path / "other.pt", device="cpu").name == "other"
        with pytest.raises(ConfigError, match="another model 'other'"):
            register_model(replace(MODELS["convnet"], name="other"))
    finally:
        del MODELS["other"]


class ShapeBatches(MemoryBatches):
    """Two shapes a batch."""

    def __iter__(self) -> Iterator[list]:
        for items in super().__iter__():
            yield [shape_item(int(item.name.rpartition("-")[2]), SIDE) for item in items]


def test_it_trains(model: PromptableModel, tmp_path: Path) -> None:
    before = model.image_encoder.get_parameter("stem.weight").clone()
    loop = LoopConfig(epochs=1, batch_size=2, warmup_steps=0, checkpoint_activations=True, workers=0)
    result = train(SamTask(model, RECIPE), ShapeBatches(4, 2), loop, tmp_path)
    assert result.step == 2
    assert not torch.equal(model.image_encoder.get_parameter("stem.weight"), before)
    assert set(blocks_of(model)) > set(model.image_encoder.encoder_blocks())


def test_learning_rates_decay_from_block_to_block(model: PromptableModel) -> None:
    encoder = model.image_encoder
    groups = parameter_groups(model, weight_decay=0.0, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    names = ("stem.weight", "body.0.conv.weight", "body.1.linear.bias", "head.weight")
    assert [scales[id(encoder.get_parameter(name))] for name in names] == [0.125, 0.25, 0.5, 1.0]


def test_what_it_cannot_do_is_refused(model: PromptableModel) -> None:
    with pytest.raises(ConfigError, match="ConvNet has no drop path"):
        SamTask(model, replace(RECIPE, drop_path=0.1))
    with pytest.raises(ConfigError, match="Masked autoencoding"):
        MaeTask(model)
    with pytest.raises(ConfigError, match=r"takes maps of strides \(16, 4, 8\), and ConvNetConfig has \(16,\)"):
        Sam2Config(ConvNetConfig())


def test_it_is_exported(model: PromptableModel, tmp_path: Path) -> None:
    manifest = to_onnx(loaded(model), tmp_path / "onnx")
    assert min(record.min_iou for record in manifest.checks) > 0.999
    (feature,) = OnnxModel(tmp_path / "onnx").embed([image()])[0]
    np.testing.assert_allclose(feature, loaded(model).embed([image()])[0][0], atol=1e-4)


def test_it_takes_adapters(model: PromptableModel) -> None:
    pixels = torch.randn(1, 3, SIDE, SIDE)
    before = model.encode_features(pixels)[0]
    add_adapters(model)
    trained = {name for name, x in model.image_encoder.named_parameters() if x.requires_grad}
    assert len(trained) == 4
    assert all("lora" in name for name in trained)
    torch.testing.assert_close(merge_adapters(model).encode_features(pixels)[0], before)


def test_it_is_distilled(model: PromptableModel) -> None:
    student = build_model(replace(CONFIG, encoder=ConvNetConfig(width=8, depth=1)), "student")
    task = DistillTask(model, student, DistillConfig(batch_statistics=False))
    (loss,) = task.losses([shape_item(1, SIDE)])
    loss.total.backward()
    assert student.image_encoder.get_parameter("stem.weight").grad is not None


def test_a_name_is_registered_once() -> None:
    other = type("ConvNetConfig", (), {"__module__": "elsewhere"})
    with pytest.raises(ConfigError, match="There is a ConvNetConfig in"):
        register(other)
