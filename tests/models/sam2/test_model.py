from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models_for_tests import SMALL_SAM2_CONFIGS, loaded, seed_weights, small_sam2
from tests.parity.cases import small_frames

import segany
from segany import AutomaticConfig, AutomaticMaskGenerator, ImagePredictor, Prompt
from segany.models.sam2.model import LOGIT_LIMIT, NO_OBJECT_LOGIT, Sam2
from segany.models.sam2.tracking import FrameFeatures, ObjectMasks, ObjectMemory

SIZE_HW = (90, 140)


@pytest.fixture(scope="module")
def model() -> Sam2:
    return small_sam2()


@pytest.fixture(scope="module")
def predictor(model: Sam2) -> ImagePredictor:
    return ImagePredictor(loaded(model))


@pytest.fixture(scope="module")
def embedding(predictor: ImagePredictor) -> segany.Embedding:
    return predictor.embed(np.random.default_rng(3).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def frame(model: Sam2) -> FrameFeatures:
    with torch.inference_mode():
        return model.encode_frame(small_frames()[0])


def test_mixed_prompts_give_what_each_gives_alone(predictor: ImagePredictor, embedding: segany.Embedding) -> None:
    mask = np.random.default_rng(5).normal(0, 4, (64, 64)).astype(np.float32)
    prompts = [
        Prompt(points_xy=[[20, 30]]),
        Prompt(box_xyxy=[10, 10, 90, 70]),
        Prompt(box_xyxy=[10, 10, 90, 70], points_xy=[[40, 40]], mask_logits=mask),
        Prompt(mask_logits=mask),
    ]
    together = predictor.predict(embedding, prompts)
    for index, prompt in enumerate(prompts):
        alone = predictor.predict(embedding, prompt)
        np.testing.assert_allclose(together[index].low_res_logits, alone.low_res_logits, atol=1e-4)
        np.testing.assert_allclose(together[index].scores, alone.scores, atol=1e-5)
        assert alone.masks.shape[2:] == SIZE_HW


def test_embeddings_carry_the_fine_features(embedding: segany.Embedding, model: Sam2, tmp_path: Path) -> None:
    assert [feature.shape for feature in embedding.features] == [(256, 16, 16), (32, 64, 64), (64, 32, 32)]
    predictor, prompt = ImagePredictor(loaded(model)), Prompt(points_xy=[[20, 30]])
    stored = segany.Embedding.load(embedding.save(tmp_path / "image.safetensors"))
    np.testing.assert_array_equal(
        predictor.predict(stored, prompt).low_res_logits, predictor.predict(embedding, prompt).low_res_logits
    )
    blurred = replace(embedding, features=(embedding.features[0], *(0 * x for x in embedding.features[1:])))
    assert (predictor.predict(blurred, prompt).masks != predictor.predict(embedding, prompt).masks).any()


def test_logits_are_clamped_where_they_are_fed_back(predictor: ImagePredictor, embedding: segany.Embedding) -> None:
    mask = np.random.default_rng(5).normal(0, 40, (64, 64)).astype(np.float32)
    clamped = mask.clip(-LOGIT_LIMIT, LOGIT_LIMIT)
    wild, tame = (predictor.predict(embedding, Prompt(mask_logits=logits)) for logits in (mask, clamped))
    np.testing.assert_array_equal(wild.low_res_logits, tame.low_res_logits)


def test_everything_in_an_image(model: Sam2) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    settings = AutomaticConfig(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    records = AutomaticMaskGenerator(loaded(model), settings).generate(image)
    assert len(records) > 0
    best = records[0]
    predictor = ImagePredictor(loaded(model))
    prediction = predictor.predict(predictor.embed(image), Prompt(points_xy=[best.point_xy]), masks="multi")
    candidate = int(np.abs(prediction.scores[0] - best.predicted_iou).argmin())
    assert (prediction.masks[0, candidate] == best.mask).mean() > 0.999


def test_a_single_mask_that_is_not_stable_gives_way(frame: FrameFeatures) -> None:
    points, labels = torch.tensor([[[60.0, 80.0], [99.0, 7.0]]]), torch.tensor([[1, 1]])
    answers = {}
    for thresh in (None, 0.0, 1.0):
        config = SMALL_SAM2_CONFIGS["sam2.1"]
        model = Sam2(replace(config, decoder=replace(config.decoder, stability_thresh=thresh)), name="small")
        seed_weights(model)
        with torch.inference_mode():
            answers[thresh] = model.decode_frame(frame, points=points, labels=labels)
            three = model.decode_frame(frame, points=points, labels=labels, multimask=True)
    torch.testing.assert_close(answers[None].low_res, answers[0.0].low_res)
    torch.testing.assert_close(answers[1.0].low_res, three.best().low_res)
    torch.testing.assert_close(answers[1.0].iou, three.best().iou)
    torch.testing.assert_close(answers[1.0].pointers, answers[None].pointers)  # always the single mask's
    assert (answers[None].iou != answers[1.0].iou).all()


def test_one_point_or_none_gives_three_candidates(model: Sam2, frame: FrameFeatures) -> None:
    points, labels = torch.tensor([[[60.0, 80.0], [99.0, 7.0]]]), torch.tensor([[1, 1]])
    with torch.inference_mode():
        assert model.decode_frame(frame).low_res.shape == (1, 3, 64, 64)
        assert model.decode_frame(frame, points=points[:, :1], labels=labels[:, :1]).low_res.shape[1] == 3
        assert model.decode_frame(frame, points=points, labels=labels).low_res.shape[1] == 1


def random_memory(masks: int, pointers: int, seed: int) -> ObjectMemory:
    generator = torch.Generator().manual_seed(seed)
    return ObjectMemory(
        tuple(torch.randn(64, 16, 16, generator=generator) for _ in range(masks)),
        tuple(range(masks)),
        tuple(torch.randn(256, generator=generator) for _ in range(pointers)),
        tuple(index / 15 for index in range(pointers)),
    )


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_objects_together_are_as_each_alone(version: str, form: str, frame: FrameFeatures) -> None:
    model = small_sam2(version)
    if form == "plain":  # all objects in one batch
        state, model = model.state_dict(), Sam2(model.config, name="small")
        model.load_state_dict(state)
    memories = [random_memory(*lengths, seed) for seed, lengths in enumerate([(1, 2), (3, 0), (1, 2), (7, 16)])]
    with torch.inference_mode():
        together = model.attend_memory(frame, memories)
        alone = torch.cat([model.attend_memory(frame, [memory]) for memory in memories])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
        masks = model.decode_frame(frame, together)
        one = model.decode_frame(frame, together[2:3])
        torch.testing.assert_close(masks.low_res[2:3], one.low_res, atol=1e-4, rtol=1e-4)
        memory = model.encode_memory(frame, masks.low_res[:, 0], masks.object_scores)
        alone_memory = model.encode_memory(frame, masks.low_res[2:3, 0], masks.object_scores[2:3])
        torch.testing.assert_close(memory[2:3], alone_memory, atol=1e-4, rtol=1e-4)


def test_what_is_remembered_changes_what_is_seen(model: Sam2, frame: FrameFeatures) -> None:
    memory = random_memory(2, 2, seed=0)
    with torch.inference_mode():
        before = model.attend_memory(frame, [memory])
        for other in (
            memory._replace(maskmem_tpos=(5, 6)),
            memory._replace(pointer_tpos=(0.5, 0.9)),
            memory._replace(pointers=memory.pointers[::-1]),
        ):
            assert (model.attend_memory(frame, [other]) - before).abs().max() > 1e-4


def test_an_object_out_of_sight(frame: FrameFeatures) -> None:
    model = small_sam2()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.get_parameter("layers.2.bias").fill_(-100)
        masks = model.decode_frame(frame)
        assert (masks.low_res == NO_OBJECT_LOGIT).all()
        torch.testing.assert_close(masks.pointers[0, 1], model.no_obj_ptr[0])
        given = model.use_masks_as_output(frame, torch.stack([torch.zeros(256, 256), torch.ones(256, 256)]))
    assert given.object_scores.tolist() == [-10, 10]
    for low_res, logit in zip(given.low_res, (-10.0, 10.0), strict=True):
        torch.testing.assert_close(low_res, torch.full((1, 64, 64), logit))
    torch.testing.assert_close(given.pointers[0, 0], model.no_obj_ptr[0])


def test_choosing_candidates() -> None:
    masks = ObjectMasks(
        torch.arange(12.0).reshape(2, 3, 1, 2), torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.3]]),
        torch.arange(6.0).reshape(2, 3, 1), torch.zeros(2),
    )  # fmt: skip
    assert masks.best().low_res.flatten().tolist() == [2, 3, 6, 7]
    assert masks.choose(torch.tensor([2, 2])).pointers.flatten().tolist() == [2, 5]
    assert masks.best().iou.tolist() == [[pytest.approx(0.9)], [pytest.approx(0.8)]]


def test_gradients_reach_the_encoder_and_the_memory() -> None:
    model = small_sam2()
    torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.get_parameter("layers.2.bias"), 100)  # in sight
    frames = small_frames()
    first = model.encode_frame(frames[0])
    masks = model.decode_frame(first)
    memory = model.encode_memory(first, masks.low_res[:, 0], masks.object_scores)
    recalled = ObjectMemory((memory[0],), (6,), (masks.pointers[0, 0],), (0.1,))
    second = model.encode_frame(frames[1])
    found = model.decode_frame(second, model.attend_memory(second, [recalled]))
    (found.low_res.square().mean() + found.iou.sum() + found.object_scores.sum()).backward()
    without = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    # Prompts that were not given, the single mask, and what only occluded objects need.
    expected = ("point_embeddings", "mask_down", "hypernetworks_mlps.0", "no_mem_pos_enc", "no_obj")
    assert {
        name for name in without if not (any(part in name for part in expected) or name.endswith("k_proj.bias"))
    } == set()


def test_half_precision_still_tracks() -> None:
    model = small_sam2().to(torch.bfloat16)
    frames = small_frames().to(torch.bfloat16)
    with torch.inference_mode():
        frame = model.encode_frame(frames[0])
        masks = model.decode_frame(frame).best()
        memory = model.encode_memory(frame, masks.low_res[:, 0], masks.object_scores)
        recalled = ObjectMemory((memory[0],), (6,), (masks.pointers[0, 0],), (0.1,))
        conditioned = model.attend_memory(frame, [recalled])
    assert {x.dtype for x in (masks.low_res, memory, conditioned)} == {torch.bfloat16}
    assert conditioned.isfinite().all()


class Step(torch.nn.Module):
    """A step of tracking as a function of tensors alone."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor, memory: torch.Tensor, pointer: torch.Tensor) -> torch.Tensor:
        frame = self.model.encode_frame(pixels)
        conditioned = self.model.attend_memory(frame, [ObjectMemory((memory,), (6,), (pointer,), (0.1,))])
        return self.model.decode_frame(frame, conditioned).low_res


def test_a_step_of_tracking_exports(model: Sam2) -> None:
    torch.manual_seed(0)
    inputs = (small_frames()[0], torch.randn(64, 16, 16), torch.randn(256))
    exported = torch.export.export(Step(model), inputs)
    assert not any("complex" in str(node.target) for node in exported.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*inputs), Step(model)(*inputs), atol=1e-3, rtol=1e-3)
