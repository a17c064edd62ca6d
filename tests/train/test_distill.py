from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.items_for_tests import make_item
from tests.models_for_tests import SMALL_TINY_VIT, SMALL_VIT, loaded, seed_weights, small_sam, small_sam2

import segany
from segany.core.errors import ConfigError
from segany.kernels.processor import TensorProcessor
from segany.models.registry import find_spec
from segany.models.sam.config import DecoderConfig, VitConfig
from segany.models.sam.model import Sam
from segany.train.distill import DistillConfig, DistillTask, assemble, embedding_loss
from segany.train.embeddings import EmbeddingStore

ITEMS = [make_item("a", seed=1), make_item("b", (256, 128), seed=2)]
PLAIN = DistillConfig(batch_statistics=False)

SMALLER = replace(SMALL_VIT, encoder=VitConfig(width=32, depth=1, heads=2, global_blocks=(0,), input_size=256))


def smaller_sam() -> Sam:
    torch.manual_seed(0)
    return Sam(SMALLER, name="smaller")


def test_a_student_that_is_its_teacher_costs_nothing() -> None:
    task = DistillTask(small_sam(), small_sam(), PLAIN, val_items=ITEMS)
    for loss in task.losses(ITEMS):
        assert float(loss.total.detach()) == pytest.approx(0, abs=1e-9)
    scores = task.validate()
    assert list(scores) == ["cosine", "squared_error", "val_loss"]  # the first is better when higher
    assert scores["cosine"] == pytest.approx(1)
    assert scores["squared_error"] == pytest.approx(0, abs=1e-9)


def test_loss_is_the_mean_squared_error_of_embeddings() -> None:
    teacher, student = small_sam(), smaller_sam()
    task = DistillTask(teacher, student, PLAIN)
    (loss,) = task.losses(ITEMS[1:])
    pixels = TensorProcessor(teacher.preprocessing).normalize([ITEMS[1].image], teacher)
    with torch.no_grad():
        error = (student.encode_image(pixels) - teacher.encode_image(pixels)).square().mean()
    torch.testing.assert_close(loss.total.detach(), error)
    assert loss.parts["squared_error"] == pytest.approx(float(error))


def test_padding_counts_as_much_as_it_is_told_to() -> None:
    ours, theirs = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    theirs[:, :, 1] = 3
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.5]])
    assert float(embedding_loss(ours, theirs, weights).total) == pytest.approx((1 + 4.5 + 1 + 4.5) / 3)
    task = DistillTask(small_sam(), smaller_sam(), DistillConfig(padding_weight=0.25))
    weights = task._weights(make_item(size_hw=(256, 100)), torch.zeros(256, 16, 16))
    assert (weights[:, :7] == 1).all()  # the seventh position sees four columns of the image
    assert (weights[:, 7:] == 0.25).all()


def test_gradients_reach_the_student_alone_and_all_of_it() -> None:
    teacher, student = small_sam(), smaller_sam()
    task = DistillTask(teacher, student, PLAIN)
    torch.stack([loss.total for loss in task.losses(ITEMS)]).mean().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.image_encoder.parameters())
    assert all(parameter.grad is None for head in task.module.heads() for parameter in head.parameters())
    grouped = [id(parameter) for group in task.parameter_groups() for parameter in group["params"]]  # type: ignore[attr-defined]
    assert sorted(grouped) == sorted(map(id, student.image_encoder.parameters()))


def test_kept_features_give_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = small_sam()
    store = EmbeddingStore(tmp_path, teacher)
    store.fill(ITEMS)
    direct = DistillTask(teacher, smaller_sam(), PLAIN).losses(ITEMS)
    task = DistillTask(teacher, smaller_sam(), PLAIN, features=store.features)
    monkeypatch.setattr(teacher, "encode_features", None)
    monkeypatch.setattr(teacher, "encode_image", None)
    for kept, computed in zip(task.losses(ITEMS), direct, strict=True):
        torch.testing.assert_close(kept.total, computed.total, rtol=1e-3, atol=0)


def test_loss_falls_and_the_student_predicts() -> None:
    teacher = small_sam()
    task = DistillTask(teacher, smaller_sam(), val_items=ITEMS)
    groups = [{"params": group["params"]} for group in task.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    before = task.validate()
    for _ in range(15):
        optimizer.zero_grad()
        torch.stack([loss.total for loss in task.losses(ITEMS)]).mean().backward()
        optimizer.step()
    after = task.validate()
    assert after["squared_error"] < 0.7 * before["squared_error"]
    assert after["cosine"] > before["cosine"]
    predictor = segany.ImagePredictor(loaded(task.module))
    prediction = predictor.predict(predictor.embed(ITEMS[0].image), segany.Prompt(points_xy=[[80, 100]]))
    assert prediction.masks.shape[-2:] == (256, 192)


def test_batch_norms_learn_only_where_told() -> None:
    for learns in (True, False):
        student = small_sam(SMALL_TINY_VIT)
        task = DistillTask(small_sam(), student, DistillConfig(batch_statistics=learns), val_items=ITEMS)
        statistics = student.image_encoder.patch_embed.seq[0].bn.running_mean  # type: ignore[union-attr, index]
        before = statistics.clone()  # type: ignore[union-attr, operator]
        task.validate()
        assert torch.equal(statistics, before)  # type: ignore[arg-type]
        task.losses(ITEMS)
        assert torch.equal(statistics, before) is not learns  # type: ignore[arg-type]


def test_losses_do_not_depend_on_the_batch_without_its_statistics() -> None:
    task = DistillTask(small_sam(), small_sam(SMALL_TINY_VIT), PLAIN)
    together = torch.stack([loss.total for loss in task.losses(ITEMS)])
    alone = torch.stack([task.losses([item])[0].total for item in ITEMS])
    torch.testing.assert_close(together, alone)


def test_assembled_models_have_the_teachers_heads_for_their_own() -> None:
    teacher, student = small_sam(), smaller_sam()
    encoder = student.image_encoder
    whole = assemble(student, teacher)
    assert whole.image_encoder is encoder
    for ours, theirs in zip(whole.heads(), teacher.heads(), strict=True):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)
            assert ours.state_dict()[name].data_ptr() != value.data_ptr()
    with torch.no_grad():
        whole.mask_decoder.mask_tokens.weight.add_(1)
    assert not torch.equal(whole.mask_decoder.mask_tokens.weight, teacher.mask_decoder.mask_tokens.weight)


def test_checkpoint_of_a_distilled_mobile_sam_loads(tmp_path: Path) -> None:
    teacher, student = find_spec("mobile_sam").build(), find_spec("mobile_sam").build()
    seed_weights(teacher)
    assert isinstance(teacher, Sam)
    assert isinstance(student, Sam)
    task = DistillTask(teacher, student)
    path = tmp_path / "distilled.safetensors"
    save_file(task.module.state_dict(), path)
    again = segany.load(path, device="cpu")
    assert again.name == "mobile_sam"
    assert torch.equal(
        again.module.get_parameter("mask_decoder.mask_tokens.weight"), teacher.mask_decoder.mask_tokens.weight
    )


def test_models_that_do_not_fit_are_refused() -> None:
    teacher = small_sam()
    half = replace(SMALLER, encoder=replace(SMALLER.encoder, input_size=128))
    with pytest.raises(ConfigError, match="16 positions a side of the teacher 'small', 256 and 8"):
        DistillTask(teacher, Sam(half, name="half"))
    with pytest.raises(ConfigError, match="decoders"):
        DistillTask(teacher, Sam(replace(SMALLER, decoder=DecoderConfig(depth=1)), name="shallow"))
    with pytest.raises(ConfigError, match="SAM family"):
        DistillTask(small_sam2(), smaller_sam())  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("padding_weight", 1.5), ("padding_weight", -0.1), ("weight_decay", -1)])
def test_config_refuses(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        DistillConfig(**{field: value})
