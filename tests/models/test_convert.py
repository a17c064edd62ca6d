from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models_for_tests import SMALL_HIERA, SMALL_VIT, seed_weights, small_sam
from tests.parity.seeded import seeded_state

import segany
from segany import CheckpointError, ConfigError, UnknownModelError
from segany.models.convert import encoder_id, matching_specs, read_checkpoint
from segany.models.registry import MODELS, find_spec
from segany.models.sam.config import DecoderConfig, SamConfig, VitConfig
from segany.models.sam.model import Sam
from segany.models.sam2.config import MemoryConfig, Sam2Config

TRANSFORMERS_SHAPES = Path(__file__).parents[1] / "parity" / "golden" / "small_transformers.json"

OFFICIAL_KEYS = {
    "sam_vit_b": (314, "d0f5fb73"),
    "sam_vit_l": (482, "a1e56ebc"),
    "sam_vit_h": (594, "3ac638b9"),
    "sam2_hiera_tiny": (468, "e263242f"),
    "sam2_hiera_small": (516, "9e278314"),
    "sam2_hiera_base_plus": (612, "73e04f10"),
    "sam2_hiera_large": (900, "155d509e"),
    "sam2.1_hiera_tiny": (471, "d7602d3f"),
    "sam2.1_hiera_small": (519, "a7d829d1"),
    "sam2.1_hiera_base_plus": (615, "be86e269"),
    "sam2.1_hiera_large": (903, "b3a32da4"),
}
"""Number of tensors of the official checkpoints, and the start of the sha256 of their names and shapes."""


def names_and_shapes(name: str) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in MODELS[name].build_empty().state_dict().items()}


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", OFFICIAL_KEYS)
def test_official_names_and_shapes(name: str) -> None:
    shapes = names_and_shapes(name)
    assert (len(shapes), digest(shapes)) == OFFICIAL_KEYS[name]


def test_recognizing_weights_builds_no_model_of_another_encoder_after_the_match(monkeypatch):
    def build(config: VitConfig, *args: object) -> None:
        raise AssertionError("built to compare with, which is a sixth of the start of a process")

    monkeypatch.setattr(VitConfig, "build", build)
    state = find_spec("mobile_sam").build_empty().state_dict()
    assert [spec.name for spec in matching_specs(state)] == ["mobile_sam"]


@pytest.fixture(scope="module")
def mobile_sam_state() -> dict[str, torch.Tensor]:
    model = MODELS["mobile_sam"].build()
    seed_weights(model)
    return model.state_dict()


@pytest.fixture
def checkpoint(mobile_sam_state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "any-name.pt"
    torch.save(mobile_sam_state, path)
    return path


def test_a_path_loads_the_model_that_its_tensors_are(checkpoint: Path) -> None:
    model = segany.load(checkpoint)
    assert model.name == "mobile_sam"
    assert not model.module.training
    assert str(segany.load(str(checkpoint), device="cpu").device) == "cpu"


def test_a_safetensors_file_loads_the_same(
    mobile_sam_state: dict[str, torch.Tensor], checkpoint: Path, tmp_path: Path
) -> None:
    save_file({k: v.contiguous() for k, v in mobile_sam_state.items()}, tmp_path / "same.safetensors")
    assert segany.load(tmp_path / "same.safetensors").encoder_id == segany.load(checkpoint).encoder_id


def test_the_official_classification_head_is_left_out(mobile_sam_state: dict[str, torch.Tensor]) -> None:
    extra = {"image_encoder.head.weight": torch.zeros(1000, 320), "image_encoder.norm_head.bias": torch.zeros(320)}
    assert MODELS["mobile_sam"].config.rename_keys(mobile_sam_state | extra).keys() == mobile_sam_state.keys()


def test_a_transformers_file_gives_our_names(tmp_path: Path) -> None:
    shapes = json.loads(TRANSFORMERS_SHAPES.read_text())
    theirs = seeded_state({key: tuple(shape) for key, shape in shapes.items()})
    save_file({key: torch.from_numpy(value) for key, value in theirs.items()}, tmp_path / "theirs.safetensors")
    ours = SMALL_VIT.rename_keys(read_checkpoint(tmp_path / "theirs.safetensors"))
    expected = Sam(SMALL_VIT, name="small").state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    np.testing.assert_array_equal(
        ours["image_encoder.blocks.1.norm2.weight"], theirs["vision_encoder.layers.1.layer_norm2.weight"]
    )


def test_a_checkpoint_in_half_precision_loads_in_single(
    mobile_sam_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in mobile_sam_state.items()}
    torch.save(half, tmp_path / "half.pt")
    state = segany.load(tmp_path / "half.pt").module.state_dict()
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_wrapped_state_dict_is_found(mobile_sam_state: dict[str, torch.Tensor], wrapper: str, tmp_path: Path) -> None:
    torch.save({wrapper: mobile_sam_state, "epoch": 3}, tmp_path / "wrapped.pt")
    assert read_checkpoint(tmp_path / "wrapped.pt").keys() == mobile_sam_state.keys()


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", "sam2.1_hiera_tiny"])
def test_a_checkpoint_of_sam2_says_which_version_it_is(name: str, tmp_path: Path) -> None:
    state = {key: torch.zeros(value.shape) for key, value in MODELS[name].build_empty().state_dict().items()}
    torch.save({"model": state}, tmp_path / "official.pt")
    assert segany.load(tmp_path / "official.pt").name == name


def test_own_weights_for_a_named_model(checkpoint: Path) -> None:
    assert segany.load("mobile_sam", checkpoint=checkpoint).name == "mobile_sam"


def test_a_checkpoint_of_another_model_names_it(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the model 'sam_vit_b'") as error:
        segany.load("sam_vit_b", checkpoint=checkpoint)
    message = str(error.value)
    assert "holds the weights of 'mobile_sam'" in message
    assert "missing: image_encoder.pos_embed" in message
    assert "unexpected: image_encoder.patch_embed.seq.0.c.weight" in message


def test_damage_to_a_state_dict_is_named(mobile_sam_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state = dict(mobile_sam_state)
    del state["mask_decoder.iou_token.weight"]
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(5, 256)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="fits none of the models") as error:
        segany.load(tmp_path / "odd.pt")
    message = str(error.value)
    assert "nearest is 'mobile_sam'" in message
    assert "1 missing: mask_decoder.iou_token.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "mask_decoder.mask_tokens.weight [5, 256] instead of [4, 256]" in message


def test_a_truncated_checkpoint(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        segany.load(checkpoint)


def test_a_truncated_safetensors_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:200])
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        segany.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damage_of_every_kind_is_a_checkpoint_error(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.zeros(4), "b": torch.zeros(2)}, whole, _use_new_zipfile_serialization=False)
    content = whole.read_bytes()
    damaged = tmp_path / f"damaged{suffix}"
    for at in range(0, len(content), 3):
        for change in (b"\x80", b"(", b"R", b"\xff"):
            damaged.write_bytes(content[:at] + change + content[at + 1 :])
            with contextlib.suppress(CheckpointError):  # some changes do no harm
                read_checkpoint(damaged)
    damaged.write_bytes(b"\x80")
    with pytest.raises(CheckpointError, match="is no readable"):
        read_checkpoint(damaged)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("method", ["open", "is_file"])
def test_a_file_that_may_not_be_read(tmp_path: Path, suffix: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, *args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = tmp_path / f"secret{suffix}"
    path.write_bytes(b"")
    monkeypatch.setattr(Path, method, deny)
    with pytest.raises(CheckpointError, match=r"secret\..* cannot be read: Permission denied"):
        read_checkpoint(path)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(CheckpointError):
        segany.load("x" * 5000 + ".pt")


class Code:
    """Anything that is no tensor: unpickling it would run code."""


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"a": Code()}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        segany.load(tmp_path / "code.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {0: torch.zeros(2)}])
def test_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        segany.load(tmp_path / "other.pt")


def test_not_a_checkpoint_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError):
        segany.load(tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match="There is no checkpoint file"):
        segany.load(tmp_path / "missing.pt")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match=r"no model 'sam_vit_x'.*sam_vit_"):
        segany.load("sam_vit_x")
    with pytest.raises(UnknownModelError, match="Known models: mobile_sam"):
        find_spec("zzzzzzzz")


def test_a_device_that_is_not_there(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used here"):
        segany.load(checkpoint, device="cuda:99")
    with pytest.raises(ConfigError, match="'abacus'"):
        segany.load(checkpoint, device="abacus")


def test_half_precision_still_segments(checkpoint: Path) -> None:
    predictor = segany.ImagePredictor(segany.load(checkpoint, dtype=torch.bfloat16))
    embedding = predictor.embed(torch.zeros(8, 8, dtype=torch.uint8).numpy())
    assert predictor.predict(embedding, segany.Prompt(points_xy=[[4, 4]])).masks.shape == (1, 3, 8, 8)


def test_encoder_id_tells_trainings_apart() -> None:
    model = small_sam()
    before = encoder_id(model.image_encoder)
    assert before == encoder_id(small_sam().image_encoder) == encoder_id(small_sam().double().image_encoder)
    with torch.no_grad():
        model.image_encoder.get_parameter("neck.0.weight").mul_(1.001)
    assert encoder_id(model.image_encoder) != before


@pytest.mark.parametrize(
    "build",
    [
        lambda: VitConfig(width=64, depth=2, heads=2, global_blocks=(), input_size=1000),
        lambda: VitConfig(width=64, depth=2, heads=3, global_blocks=()),
        lambda: VitConfig(width=64, depth=2, heads=2, global_blocks=(2,)),
        lambda: VitConfig(width=64, depth=2, heads=2, global_blocks=(), window_size=0),
        lambda: DecoderConfig(depth=0),
        lambda: replace(SMALL_HIERA, input_size=100),
        lambda: replace(SMALL_HIERA, width=33, heads=2),
        lambda: replace(SMALL_HIERA, depths=(1, 0, 1, 1)),
        lambda: replace(SMALL_HIERA, window_sizes=(8, 3, 14, 7)),
        lambda: replace(SMALL_HIERA, global_blocks=(7,)),
        lambda: MemoryConfig(num_maskmem=0),
        lambda: MemoryConfig(max_cond_frames=1),
        lambda: Sam2Config(SMALL_HIERA, memory=MemoryConfig(channels=100)),
        lambda: type(MODELS["mobile_sam"].config.encoder)(input_size=0),
    ],
)
def test_configurations_refuse_nonsense(build: object) -> None:
    with pytest.raises(ConfigError):
        build()  # type: ignore[operator]


def test_every_size_is_in_one_table() -> None:
    sam2 = [
        f"sam{version}_hiera_{size}" for version in ("2", "2.1") for size in ("tiny", "small", "base_plus", "large")
    ]
    assert segany.list_models() == ["mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h", *sam2]
    for spec in MODELS.values():
        assert isinstance(spec.config, SamConfig)
        assert spec.config.input_size == 1024
        assert spec.config.low_res_size == 256
        assert spec.sources


def test_building_empty_costs_nothing() -> None:
    code = (
        "import sys; from segany.models.registry import MODELS; model = MODELS['sam_vit_b'].build_empty();"
        "print({value.device.type for value in model.state_dict().values()}, 'sympy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "{'meta'} False"
