from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, SMALL_TINY_VIT
from tests.train.shape_items import shape_item
from torch import Tensor

from segany.core.errors import ConfigError, TrainingError
from segany.data.item import TrainingItem
from segany.kernels.processor import TensorProcessor
from segany.models.promptable import PromptableModel
from segany.models.sam.config import DecoderConfig, SamConfig, VitConfig
from segany.models.sam.model import Sam
from segany.models.sam2.model import Sam2
from segany.train.click_simulation import ClickSimulation
from segany.train.init import initialize
from segany.train.prompts import draw_prompts
from segany.train.sam_recipe import SamRecipe
from segany.train.sam_task import SamTask, drop_path_scales
from segany.train.task import Task

FAMILIES = ["vit", "tiny_vit", "sam2"]
SHORT = SamRecipe(iterations=3, drop_path=0.0, loss_side=32, layer_decay=0.8)
TINY_VIT = replace(SMALL_TINY_VIT.encoder, input_size=128, widths=(8, 16, 20, 24), heads=(1, 1, 1, 1), out_channels=32)
SMALL_DECODER = DecoderConfig(depth=1, heads=2, mlp_width=64, iou_head_width=32, cross_attention_width=16)


def small_model(family: str = "vit") -> PromptableModel:
    model: PromptableModel
    if family == "sam2":
        config = SMALL_SAM2_CONFIGS["sam2.1"]
        model = Sam2(replace(config, encoder=replace(config.encoder, input_size=128)), "small")
    else:
        vit = VitConfig(width=32, depth=3, heads=2, global_blocks=(1,), input_size=128, window_size=6, out_channels=32)
        model = Sam(SamConfig(vit if family == "vit" else TINY_VIT, SMALL_DECODER), "small")
    initialize(model, 0)
    return model


def items(*indices: int) -> list[TrainingItem]:
    return [shape_item(index, 128) for index in indices]


def gradients(model: PromptableModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def learn(model: PromptableModel, recipe: SamRecipe, *indices: int) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some items, and the gradients of their mean."""
    model.zero_grad()
    losses = SamTask(model, recipe).losses(items(*indices))
    torch.stack([loss.total for loss in losses]).mean().backward()
    return [loss.total.item() for loss in losses], gradients(model)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("train", ["all", "decoder"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_parameter_gets_a_gradient(family: str, train: Any, autocast: bool) -> None:
    model = small_model(family)
    task: Task = SamTask(model, replace(SHORT, train=train))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = task.losses(items(0, 1))
    torch.stack([loss.total for loss in losses]).mean().backward()
    groups = [group["params"] for group in task.parameter_groups()]
    trained = {id(parameter) for group in groups for parameter in group}  # type: ignore[attr-defined]
    for name, parameter in model.named_parameters():
        if name.endswith("token_to_image.k_proj.bias"):
            continue  # it adds the same to all scores, which softmax drops
        if id(parameter) in trained:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name
    in_encoder = any(parameter.grad is not None for parameter in model.image_encoder.parameters())
    assert in_encoder == (train == "all")


def test_bf16_costs_about_what_float32_does() -> None:
    model = small_model()
    task = SamTask(model, replace(SHORT, iterations=1, repeats=0))
    exact = [loss.total.item() for loss in task.losses(items(0, 1))]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [loss.total.item() for loss in task.losses(items(0, 1))]
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_costs_the_same_in_any_batch(family: str) -> None:
    model = small_model(family)
    recipe = replace(SHORT, iterations=5, drop_path=0.0 if family == "tiny_vit" else 0.3)
    together, of_all = learn(model, recipe, 0, 1, 2)
    apart = [learn(model, recipe, index) for index in range(3)]
    assert together == pytest.approx([losses[0] for losses, _ in apart], rel=1e-4)
    whole = torch.cat([gradient.flatten() for gradient in of_all.values()])
    sums = [sum(single.get(name, torch.zeros(())) for _, single in apart).flatten() for name in of_all]
    assert (whole - torch.cat(sums) / 3).norm() < 1e-3 * whole.norm()


def test_what_is_random_follows_from_the_items_seed() -> None:
    task = SamTask(small_model(), replace(SHORT, drop_path=0.4))
    one, again, other = (task.losses([shape_item(3, 128, seed)])[0].total.item() for seed in (5, 5, 6))
    assert one == again != other


class Recorded:
    """A model's `decode_features` with a list of what it was asked."""

    def __init__(self, model: PromptableModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, bool]] = []
        self.answers: list[tuple[Tensor, Tensor]] = []
        decode = model.decode_features

        def record(
            features: Sequence[Tensor], points: Tensor, labels: Tensor, mask_logits: Tensor | None, *, multimask: bool
        ) -> tuple[Tensor, Tensor]:
            self.calls.append((points, labels, mask_logits, multimask))
            self.answers.append(decode(features, points, labels, mask_logits, multimask=multimask))
            return self.answers[-1]

        monkeypatch.setattr(model, "decode_features", record)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("boxes", [False, True])
def test_the_eleven_iterations_of_the_paper(family: str, boxes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(family)
    recorded = Recorded(model, monkeypatch)
    SamTask(model, SamRecipe(box_chance=float(boxes), drop_path=0, loss_side=32)).losses(items(1))
    assert [call[3] for call in recorded.calls] == [True] + [False] * 10
    assert recorded.calls[0][2] is None
    # What is fed back: logits as they are, of the candidate with the best predicted IoU, without gradients.
    for (_, _, fed_back, _), (low_res, iou) in zip(recorded.calls[1:], recorded.answers, strict=False):
        assert fed_back is not None
        assert not fed_back.requires_grad
        torch.testing.assert_close(fed_back, low_res[torch.arange(len(iou)), iou.argmax(dim=1)])
    counts = [call[1].shape[1] for call in recorded.calls]
    steps = [after - before for before, after in pairwise(counts)]
    assert sorted(steps) == [0, 0] + [1] * 8
    assert steps[-1] == 0
    last = recorded.calls[-1][1].tolist()
    ends = ([2, 3] if boxes else []) + ([-1] if model.pads_boxes or not boxes else [])
    for labels in last:
        assert labels[len(labels) - len(ends) :] == ends
        assert set(labels[: len(labels) - len(ends)]) <= {0, 1}


def test_points_are_where_the_last_answer_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    recorded = Recorded(model, monkeypatch)
    item = items(2)[0]
    SamTask(model, replace(SHORT, iterations=4, repeats=0, box_chance=0)).losses([item])
    masks = torch.from_numpy(item.masks)
    each = torch.arange(len(masks))
    for index in range(1, 4):
        points, labels, logits, _ = recorded.calls[index]
        assert logits is not None
        predicted = torch.nn.functional.interpolate(logits[:, None], (128, 128), mode="bilinear")[:, 0] > 0
        x, y = points[:, index].long().unbind(dim=1)  # clicks come in turn
        assert labels[:, index].tolist() == masks[each, y, x].long().tolist()
        wrong = predicted ^ masks
        assert wrong[each, y, x].tolist() == wrong.flatten(1).any(dim=1).tolist()


def test_a_box_may_ask_for_one_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    recorded = Recorded(model, monkeypatch)
    SamTask(model, replace(SHORT, box_multimask=False, box_chance=1)).losses(items(0))
    assert [call[3] for call in recorded.calls] == [False, False, False]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_computed_before_replace_the_encoder(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(family)
    recipe = replace(SHORT, train="decoder")
    expected, of_heads = learn(model, recipe, 0, 1)
    model.zero_grad()
    with torch.no_grad():
        model.eval()
        processor = TensorProcessor(model.preprocessing)
        kept = {
            item.name: [feature[0] for feature in model.encode_features(processor.normalize([item.image], model))]
            for item in items(0, 1)
        }
    monkeypatch.setattr(model.image_encoder, "forward", None)
    losses = SamTask(model, recipe, features=lambda item: kept[item.name]).losses(items(0, 1))
    assert [loss.total.item() for loss in losses] == pytest.approx(expected, rel=1e-4)
    torch.stack([loss.total for loss in losses]).mean().backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, of_heads[name], atol=1e-4, rtol=1e-2)


def test_drop_path_scales_up_the_branches_that_are_kept() -> None:
    scales = drop_path_scales(range(400), depth=3, rate=0.4)
    assert scales.shape == (3, 2, 400)
    assert (scales[0] == 1).all()  # the first block is never dropped
    for block, kept in ((1, 0.8), (2, 0.6)):
        assert {round(value, 4) for value in scales[block].flatten().tolist()} == {0.0, round(1 / kept, 4)}
        assert scales[block].mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("family", ["vit", "sam2"])
def test_a_block_whose_branches_are_dropped_does_nothing(family: str) -> None:
    model = small_model(family)
    pixels = torch.randn(2, 3, 128, 128)
    depth = 3 if family == "vit" else sum(SMALL_SAM2_CONFIGS["sam2.1"].encoder.depths)
    scales = torch.ones(depth, 2, 2)
    plain = model.encode_features(pixels)
    torch.testing.assert_close(model.encode_features(pixels, scales), plain)
    scales[-1, :, 1] = 0  # the last block, for the second image only
    dropped = model.encode_features(pixels, scales)
    torch.testing.assert_close(dropped[0][0], plain[0][0])
    assert not torch.allclose(dropped[0][1], plain[0][1], atol=1e-4)


def test_batch_norms_keep_their_statistics_unless_told_otherwise() -> None:
    model = small_model("tiny_vit")
    before = {name: buffer.clone() for name, buffer in model.image_encoder.named_buffers()}
    SamTask(model, SHORT).losses(items(0, 1))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.image_encoder.named_buffers())
    SamTask(model, replace(SHORT, batch_statistics=True)).losses(items(0, 1))
    assert not any(
        torch.equal(buffer, before[name])
        for name, buffer in model.image_encoder.named_buffers()
        if name.endswith("running_mean")
    )


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_decoded_together_are_images_decoded_alone(family: str, grad: bool) -> None:
    model = small_model(family).train()
    features = model.encode_features(torch.randn(2, 3, 128, 128))
    points, labels = torch.rand(3, 2, 2) * 128, torch.tensor([[1, -1]] * 3)
    index = torch.tensor([1, 0, 1])
    with torch.set_grad_enabled(grad):
        low_res, iou = model.decode_features([x[index] for x in features], points, labels, multimask=True)
    for row, image in enumerate(index):
        alone = model.decode_features(
            [x[image] for x in features], points[row, None], labels[row, None], multimask=True
        )
        torch.testing.assert_close(low_res[row, None], alone[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(iou[row, None], alone[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_form_with_gradients_is_the_form_for_inference(family: str) -> None:
    model = small_model(family).eval()
    pixels, points = torch.randn(1, 3, 128, 128), torch.rand(3, 2, 2) * 128
    labels, masks = torch.tensor([[1, 0]] * 3), torch.randn(3, 32, 32)

    def run() -> tuple[Tensor, Tensor]:
        features = [feature[0] for feature in model.encode_features(pixels)]
        return model.decode_features(features, points, labels, masks, multimask=True)

    plain = run()
    with torch.inference_mode():
        fast = run()
    for got, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, expected.detach(), atol=1e-4, rtol=1e-4)


def test_gradients_of_the_heads_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    vit = VitConfig(width=8, depth=1, heads=1, global_blocks=(), input_size=32, window_size=2, out_channels=16)
    decoder = DecoderConfig(depth=2, heads=2, mlp_width=8, iou_head_width=8, cross_attention_width=8)
    model = Sam(SamConfig(vit, decoder, mask_channels=4), "small")
    initialize(model, 0)
    model.double()
    points, labels = torch.rand(2, 2, 2).double() * 32, torch.tensor([[1, 0], [1, -1]])

    def decode(embedding: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        return model.decode((embedding), points, labels, masks, multimask=True)

    inputs = (torch.randn(16, 2, 2).double(), torch.randn(2, 8, 8).double())
    assert torch.autograd.gradcheck(decode, [value.requires_grad_() for value in inputs], atol=1e-4)


def test_parts_are_means_over_iterations_and_the_total_is_their_weighted_sum() -> None:
    recipe = replace(SHORT, iterations=4, focal_weight=3, dice_weight=2, iou_weight=0.5)
    loss = SamTask(small_model(), recipe).losses(items(1))[0]
    parts = loss.parts
    expected = 4 * (3 * parts["focal"] + 2 * parts["dice"] + 0.5 * parts["iou_loss"])
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert 0 <= parts["first_iou"] <= 1


def test_the_defaults_are_the_papers() -> None:
    recipe = SamRecipe()
    assert (recipe.supervise_all_iou, recipe.iou_use_l1_loss, recipe.box_noise_kind) == (False, False, "normal")
    assert (recipe.iterations, recipe.repeats, recipe.box_chance) == (11, 2, 0.5)
    assert (recipe.box_noise, recipe.box_noise_limit) == (0.1, 20)
    assert (recipe.focal_weight, recipe.dice_weight, recipe.iou_weight) == (20, 1, 1)
    assert (recipe.weight_decay, recipe.layer_decay, recipe.drop_path) == (0.1, 0.8, 0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations"),
        ({"iterations": 2}, "iterations must be at least 3 for 2 repeats"),
        ({"repeats": 3}, "repeats"),
        ({"box_chance": 1.5}, "box_chance must be in 0..1"),
        ({"focal_alpha": -0.1}, "focal_alpha"),
        ({"focal_weight": -1.0}, "focal_weight must not be negative"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"loss_side": 0}, "loss_side"),
        ({"train": "encoder"}, "train must be"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamRecipe(**changes)


def test_what_a_model_cannot_do_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="drop_path"):
        SamTask(small_model("tiny_vit"), SamRecipe())
    with pytest.raises(ConfigError, match="decoder"):
        SamTask(small_model(), SamRecipe(), features=lambda item: [])
    with pytest.raises(ConfigError, match="loss_side 256"):
        SamTask(small_model(), SamRecipe(loss_side=256))


def test_objects_are_prompted_without_float64_on_the_device() -> None:
    """Which Apple's devices do not have."""
    item = shape_item(1, 128)
    plan = draw_prompts(3, len(item.masks), iterations=3, repeats=1, box_chance=0.0)
    prompted = ClickSimulation(0, item, plan, SHORT, torch.device("cpu"), boxes=False)
    tensors = [value for value in vars(prompted).values() if isinstance(value, Tensor)]
    assert len(tensors) == 5
    assert torch.float64 not in {tensor.dtype for tensor in tensors}


def test_an_item_of_another_size_is_refused_by_name() -> None:
    item = shape_item(0, 64)
    with pytest.raises(TrainingError, match=f"{item.name}.*128 x 128"):
        SamTask(small_model(), SHORT).losses([item])


def test_validation_runs_in_evaluation_mode() -> None:
    model = small_model()
    task = SamTask(model, SHORT, validation=lambda model: {"score": float(not model.module.training)})
    task.losses(items(0))
    assert task.validate() == {"score": 1.0}
    assert SamTask(model, SHORT).validate() == {}


@pytest.mark.slow
def test_a_few_images_are_learnt_by_heart() -> None:
    model = small_model()
    task = SamTask(model, replace(SHORT, iterations=2, repeats=0, focal_weight=5, dice_weight=5))
    groups = [{**group, "lr": 2e-3} for group in task.parameter_groups()]
    optimizer = torch.optim.AdamW(groups)
    batch = items(*range(8))
    scores = []
    for _ in range(150):
        losses = task.losses(batch)
        optimizer.zero_grad()
        torch.stack([loss.total for loss in losses]).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scores.append(sum(loss.parts["first_iou"] for loss in losses) / len(losses))
    assert scores[0] < 0.2
    assert min(scores[-5:]) > 0.6
