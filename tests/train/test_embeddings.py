from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.items_for_tests import make_item
from tests.models_for_tests import SMALL_TINY_VIT, small_sam, small_sam2

from segany.core.embedding_cache import CacheCounts
from segany.core.errors import ConfigError, TrainingError
from segany.core.progress import ProgressEvent
from segany.kernels.processor import TensorProcessor
from segany.models.promptable import PromptableModel
from segany.models.sam.model import Sam
from segany.train.embeddings import EmbeddingStore

ITEMS = [make_item("a", seed=1), make_item("b", (100, 256), seed=2), make_item("c", (256, 256), seed=3)]


@pytest.fixture(scope="module")
def model() -> Sam:
    return small_sam()


def _direct(model: PromptableModel, image: np.ndarray) -> list[torch.Tensor]:
    with torch.inference_mode():
        pixels = TensorProcessor(model.preprocessing).normalize([image], model)
        return [feature[0] for feature in model.encode_features(pixels)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("build", [small_sam, lambda: small_sam(SMALL_TINY_VIT), small_sam2])
def test_features_are_those_of_the_encoder(tmp_path: Path, build: object) -> None:
    model = build()  # type: ignore[operator]
    side = model.preprocessing.input_size
    item = make_item(size_hw=(side, side // 2), side=side)
    exact = EmbeddingStore(tmp_path, model, "fp32")
    for attempt in range(2):  # computed, then read
        features = exact.features(item)
        expected = _direct(model, item.image)
        assert len(features) == len(expected)
        for ours, theirs in zip(features, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert exact.counts == CacheCounts(found=attempt, stored=1)


def test_half_precision_rounds_before_the_first_use(tmp_path: Path, model: Sam) -> None:
    store = EmbeddingStore(tmp_path, model)
    first, second = store.features(ITEMS[0])[0], store.features(ITEMS[0])[0]
    assert store.counts == CacheCounts(found=1, stored=1)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert torch.equal(first, first.half().float())
    torch.testing.assert_close(first, _direct(model, ITEMS[0].image)[0], rtol=1e-3, atol=1e-6)
    (file,) = _files(tmp_path)
    assert file.stat().st_size < 2 * first.numel() + 1000


def test_features_lie_in_memory_as_the_encoder_makes_them(tmp_path: Path, model: Sam) -> None:
    (feature,) = EmbeddingStore(tmp_path, model).features(ITEMS[0])
    assert feature.shape == (256, 16, 16)
    assert feature.permute(1, 2, 0).is_contiguous()
    assert feature.stride() == _direct(model, ITEMS[0].image)[0].stride()


def test_precision_of_the_training_is_not_that_of_features(tmp_path: Path, model: Sam) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (feature,) = EmbeddingStore(tmp_path, model, "fp32").features(ITEMS[0])
    assert torch.equal(feature, _direct(model, ITEMS[0].image)[0])


def test_a_model_in_training_has_the_features_of_inference(tmp_path: Path) -> None:
    model = small_sam(SMALL_TINY_VIT)
    (expected,) = _direct(model, ITEMS[0].image)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    (feature,) = EmbeddingStore(tmp_path, model, "fp32").features(ITEMS[0])
    assert torch.equal(feature, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_decoder_learns_from_features(tmp_path: Path, model: Sam) -> None:
    store = EmbeddingStore(tmp_path, model)
    points, labels = torch.tensor([[[80.0, 90.0]]]), torch.tensor([[1]])
    low_res, _ = model.decode_features(store.features(ITEMS[0]), points, labels, multimask=True)
    (gradient,) = torch.autograd.grad(low_res.sum(), model.mask_decoder.mask_tokens.weight)
    assert gradient.abs().sum() > 0


def test_filling_goes_on_where_it_stopped(tmp_path: Path, model: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def stop_at_two(event: ProgressEvent) -> None:
        if event.done == 2:
            raise StopError

    with pytest.raises(StopError):
        EmbeddingStore(tmp_path, model).fill(ITEMS, progress=stop_at_two)
    told: list[ProgressEvent] = []
    store = EmbeddingStore(tmp_path, model)
    assert store.fill([ITEMS[0], None, *ITEMS[1:]], progress=told.append) == CacheCounts(found=2, stored=1)
    assert [(event.done, event.unit) for event in told] == [(1, "images"), (2, "images"), (3, "images")]
    assert store.fill(ITEMS) == CacheCounts(found=3)
    monkeypatch.setattr(model, "encode_features", None)  # an epoch needs no encoder
    for item in ITEMS:
        store.features(item)


@pytest.mark.parametrize("damage", [b"", b"\x08", "cut", "flip"])
def test_damaged_files_are_computed_again(tmp_path: Path, model: Sam, damage: bytes | str) -> None:
    expected = EmbeddingStore(tmp_path, model).features(ITEMS[0])[0]
    (file,) = _files(tmp_path)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-10:]
    elif damage == "flip":
        data[-10] ^= 0x40
    else:
        data = bytearray(damage)  # type: ignore[arg-type]
    file.write_bytes(data)
    store = EmbeddingStore(tmp_path, model)
    assert torch.equal(store.features(ITEMS[0])[0], expected)
    assert store.counts == CacheCounts(stored=1, damaged=1)
    assert torch.equal(store.features(ITEMS[0])[0], expected)
    assert store.counts == CacheCounts(found=1, stored=1, damaged=1)


def test_whatever_changes_is_computed(tmp_path: Path, model: Sam) -> None:
    item = ITEMS[0]
    EmbeddingStore(tmp_path, model).features(item)
    store = EmbeddingStore(tmp_path, model)
    flipped = np.ascontiguousarray(item.image[:, ::-1])
    for other in (replace(item, image=flipped), replace(item, image=item.image[:-1])):
        store.features(other)
    assert store.counts == CacheCounts(stored=2)
    store.features(replace(item, name="other", seed=9, masks=item.masks[:0], image=np.asfortranarray(item.image)))
    assert store.counts == CacheCounts(found=1, stored=2)  # neither names, prompts nor memory make features


def test_stores_of_other_weights_do_not_mix(tmp_path: Path) -> None:
    model = small_sam()
    EmbeddingStore(tmp_path, model).features(ITEMS[0])
    with torch.no_grad():
        model.mask_decoder.mask_tokens.weight.add_(1)  # features do not depend on it
    same = EmbeddingStore(tmp_path, model)
    same.features(ITEMS[0])
    assert same.counts.found == 1
    with torch.no_grad():
        for parameter in model.image_encoder.parameters():
            parameter.mul_(1.01)
    trained = EmbeddingStore(tmp_path, model)  # though the id it was loaded with is still on it
    trained.features(ITEMS[0])
    assert trained.counts.stored == 1
    exact = EmbeddingStore(tmp_path, model, "fp32")
    exact.features(ITEMS[0])
    assert exact.counts.stored == 1


@pytest.mark.parametrize("name", ["sam_mask_decoder.conv_s0.weight", "no_mem_embed"])
def test_sam2_features_belong_to_all_weights_that_make_them(tmp_path: Path, name: str) -> None:
    model = small_sam2()
    item = make_item(size_hw=(64, 64), side=model.preprocessing.input_size)
    EmbeddingStore(tmp_path, model).features(item)
    with torch.no_grad():
        model.get_parameter(name).add_(0.1)
    other = EmbeddingStore(tmp_path, model)
    other.features(item)
    assert other.counts == CacheCounts(stored=1)


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = small_sam()
    with torch.no_grad():
        model.image_encoder.neck[3].weight.mul_(1e6)  # type: ignore[index, union-attr, operator]
    with pytest.raises(TrainingError, match=r"features of a .* fp16"):
        EmbeddingStore(tmp_path, model).features(ITEMS[0])
    assert not _files(tmp_path)
    EmbeddingStore(tmp_path, model, "fp32").features(ITEMS[0])


def test_unknown_precision_is_refused(tmp_path: Path, model: Sam) -> None:
    with pytest.raises(ConfigError, match="fp8"):
        EmbeddingStore(tmp_path, model, "fp8")  # type: ignore[arg-type]
