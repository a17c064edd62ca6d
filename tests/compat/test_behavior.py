"""What programs do with the drop-in modules beyond calling them: subclasses, adapters, hooks, overrides, mistakes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compat import programs
from tests.kernels.test_replaced_layers import LowRank, replace_linear
from tests.models_for_tests import SMALL_SAM2_CONFIGS, seed_weights
from torch import Tensor, nn

import segany
from segany.compat import segment_anything
from segany.compat.sam2 import build_sam
from segany.compat.sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from segany.compat.sam2.modeling.sam2_base import SAM2Base
from segany.compat.sam2.overrides import Sam2Settings
from segany.compat.sam2.sam2_image_predictor import SAM2ImagePredictor
from segany.compat.sam2.sam2_video_predictor import SAM2VideoPredictor
from segany.compat.segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segany.compat.segment_anything.modeling import MaskDecoder, Sam

IMAGE = programs.photograph()
POINT = (np.array([[60.0, 40.0]]), np.array([1]))
LOOSE: dict[str, Any] = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


def small_sam() -> Any:
    model = programs.build_small_sam(segment_anything.modeling)
    seed_weights(model)
    return model


def small_sam2(kind: Any = SAM2Base, settings: Sam2Settings | None = None) -> Any:
    model = kind(SMALL_SAM2_CONFIGS["sam2.1"], "small", settings or Sam2Settings())
    seed_weights(model)
    return model


def predict(model: Any) -> list[np.ndarray]:
    predictor = SAM2ImagePredictor(model) if isinstance(model, SAM2Base) else SamPredictor(model)
    predictor.set_image(IMAGE)
    return list(predictor.predict(*POINT, return_logits=True))


def assert_alike(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 * max(1.0, np.abs(other).max()))


# Replaced and hooked modules.


@pytest.mark.parametrize("build", [small_sam, small_sam2])
def test_low_rank_adapters_are_not_bypassed(build: Any) -> None:
    adapted, merged, plain = build(), build(), build()
    adapters = replace_linear(adapted, merge=False)
    replace_linear(merged, merge=True)
    found = predict(adapted)
    assert_alike(found, predict(merged))
    assert np.abs(found[0] - predict(plain)[0]).max() > 0.1
    assert sum(adapter.calls > 0 for adapter in adapters) > 20


def test_adapters_in_the_style_of_lora_for_sam() -> None:
    """They replace `qkv` of the blocks, index its channels, and read its attributes."""

    class Qkv(nn.Module):
        def __init__(self, qkv: nn.Linear) -> None:
            super().__init__()
            self.qkv, self.dim = qkv, qkv.in_features
            self.shapes: list[int] = []
            self.query, self.value = (
                LowRank(nn.Identity(), self.dim, self.dim),
                LowRank(nn.Identity(), self.dim, self.dim),
            )

        def forward(self, x: Tensor) -> Tensor:
            self.shapes.append(x.dim())
            qkv: Tensor = self.qkv(x)
            qkv[:, :, :, : self.dim] += self.query(x) - x
            qkv[:, :, :, -self.dim :] += self.value(x) - x
            return qkv

    def adapt(sam: Any, *, merge: bool) -> Any:
        for block in sam.image_encoder.blocks:
            qkv, dim = block.attn.qkv, block.attn.qkv.in_features
            adapter = Qkv(qkv)
            if not merge:
                block.attn.qkv = adapter
                continue
            with torch.no_grad():
                for rows, part in ((slice(0, dim), adapter.query), (slice(2 * dim, None), adapter.value)):
                    qkv.weight[rows] += part.up.weight @ part.down.weight
        return sam

    adapted = adapt(small_sam(), merge=False)
    assert_alike(predict(adapted), predict(adapt(small_sam(), merge=True)))
    assert all(block.attn.qkv.shapes == [4] for block in adapted.image_encoder.blocks)


def test_hooks_on_blocks_fire_once_and_see_maps() -> None:
    sam, seen = small_sam(), []
    expected = predict(sam)
    for block in sam.image_encoder.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append((len(args), tuple(out.shape))))
    assert_alike(predict(sam), expected)
    assert seen == [(1, (1, 16, 16, 64))] * 3


def test_hooks_on_the_parts_of_sam2_fire() -> None:
    model, seen = small_sam2(), []
    expected = predict(model)
    parts = [model.image_encoder, model.image_encoder.neck, *model.image_encoder.trunk.blocks, model.sam_mask_decoder]
    for part in parts:
        part.register_forward_hook(lambda *_, part=part: seen.append(part))
    assert_alike(predict(model), expected)
    assert sorted(map(id, seen)) == sorted(map(id, parts))


def test_a_decoder_of_ones_own_is_called() -> None:
    """As HQ-SAM has it: a subclass that runs the transformer and the upscaling itself, by their official signatures."""

    class Own(MaskDecoder):
        def predict_masks(self, image_embeddings: Tensor, image_pe: Tensor, *prompts: Tensor, **named: Tensor) -> Any:
            sparse, dense = prompts or (named["sparse_prompt_embeddings"], named["dense_prompt_embeddings"])
            output = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(sparse), -1, -1)
            tokens = torch.cat([output, sparse], dim=1)
            src = image_embeddings.repeat_interleave(len(tokens), dim=0) + dense
            hidden, src = self.transformer(src, image_pe.repeat_interleave(len(tokens), dim=0), tokens)
            upscaled = self.output_upscaling(src.transpose(1, 2).unflatten(2, dense.shape[2:]))
            weights = torch.stack(
                [self.output_hypernetworks_mlps[i](hidden[:, 1 + i]) for i in range(self.num_mask_tokens)], dim=1
            )
            masks = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
            return masks + 1, self.iou_prediction_head(hidden[:, 0])

    sam = small_sam()
    masks, iou, low_res = predict(sam)
    everything = SamAutomaticMaskGenerator(sam, **LOOSE).generate(IMAGE)
    sam.mask_decoder.__class__ = Own
    own_masks, own_iou, own_low_res = predict(sam)
    assert_alike([own_masks, own_iou, own_low_res], [masks + 1, iou, low_res + 1])
    records = SamAutomaticMaskGenerator(sam, **LOOSE).generate(IMAGE)
    assert max(one["area"] for one in records) > max(one["area"] for one in everything)


def test_a_replaced_transformer_is_called_as_the_official_one() -> None:
    class Wrapped(nn.Module):
        def __init__(self, transformer: nn.Module) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor) -> Any:
            assert image_embedding.shape == image_pe.shape == (len(point_embedding), 256, 16, 16)
            return self.transformer(image_embedding, image_pe, point_embedding)

    sam = small_sam()
    expected = predict(sam)
    sam.mask_decoder.transformer = Wrapped(sam.mask_decoder.transformer)
    assert_alike(predict(sam), expected)


def test_approximate_gelu_is_used() -> None:
    sam = small_sam()
    expected = predict(sam)[2]
    for module in sam.mask_decoder.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"
    assert 0 < np.abs(predict(sam)[2] - expected).max() < 0.05


# Export, by the exporter that the official scripts and others use.


@pytest.mark.parametrize("build", [small_sam, small_sam2])
def test_traced_encoders_export(build: Any, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    encoder, pixels = build().image_encoder, torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = encoder(pixels)
        torch.onnx.export(encoder, (pixels,), str(tmp_path / "encoder.onnx"), dynamo=False)
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    if isinstance(expected, dict):
        expected = expected["vision_features"]
    np.testing.assert_allclose(outputs[0], expected, atol=1e-3)


# Subclasses.


def test_the_generator_asks_a_subclass_of_the_predictor() -> None:
    class Counting(SamPredictor):
        images = prompts = 0

        def set_image(self, image: Any, image_format: str = "RGB") -> None:
            type(self).images += 1
            super().set_image(image, image_format)

        def predict_torch(self, point_coords: Any, *args: Any, **kwargs: Any) -> Any:
            type(self).prompts += len(point_coords)
            return super().predict_torch(point_coords, *args, **kwargs)

    generator = SamAutomaticMaskGenerator(small_sam(), crop_n_layers=1, **LOOSE)
    generator.pred_iou_thresh = 1e-9  # without a threshold, the predictor is asked anyway
    expected = generator.generate(IMAGE)
    generator.predictor = Counting(generator.predictor.model)
    records = generator.generate(IMAGE)
    assert (Counting.images, Counting.prompts) == (5, 45)
    assert len(records) == len(expected) > 0
    for ours, theirs in zip(records, expected, strict=True):
        assert ours["area"] == pytest.approx(theirs["area"], rel=0.02)
        assert ours["crop_box"] == theirs["crop_box"]


def test_a_subclass_of_the_model_upscales_its_way() -> None:
    class Inverted(Sam):
        def postprocess_masks(self, masks: Tensor, input_size: Any, original_size: Any) -> Tensor:
            return -super().postprocess_masks(masks, input_size, original_size)

    sam = small_sam()
    predictor = SamPredictor(sam)
    predictor.set_image(IMAGE)
    masks = predictor.predict(*POINT)[0]
    sam.__class__ = Inverted
    inverted = predictor.predict(*POINT)[0]
    assert (masks ^ inverted).mean() > 0.999


# Settings.


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_forms_of_masks(mode: str) -> None:
    from segany.compat.segment_anything.utils.amg import coco_encode_rle, rle_to_mask

    binary = SamAutomaticMaskGenerator(small_sam(), **LOOSE).generate(IMAGE)
    records = SamAutomaticMaskGenerator(small_sam(), output_mode=mode, **LOOSE).generate(IMAGE)
    assert len(records) == len(binary) > 0
    for record, one in zip(records, binary, strict=True):
        segmentation, mask = record["segmentation"], one["segmentation"]
        assert mask.shape == (96, 128)
        assert one["area"] == mask.sum()
        if mode == "uncompressed_rle":
            assert (rle_to_mask(segmentation) == mask).all()
        elif mode == "coco_rle":
            assert segmentation == coco_encode_rle(next(iter(_encoded(mask))))


def _encoded(mask: np.ndarray) -> list[dict[str, Any]]:
    from segany.compat.segment_anything.utils.amg import mask_to_rle_pytorch

    return mask_to_rle_pytorch(torch.from_numpy(mask.copy())[None])


def test_point_grids_of_ones_own() -> None:
    grid = np.array([[0.5, 0.25]])
    settings = {**LOOSE, "points_per_side": None}
    generator = SamAutomaticMaskGenerator(small_sam(), point_grids=[grid], **settings)
    assert all(record["point_coords"] == [[64.0, 24.0]] for record in generator.generate(IMAGE))
    with pytest.raises(AssertionError, match="either points_per_side or point_grids"):
        SamAutomaticMaskGenerator(small_sam(), point_grids=[grid])


@pytest.mark.parametrize(
    "settings", [{}, {"multimask_output": False}, {"use_m2m": True}, {"mask_threshold": 0.5}, {"crop_n_layers": 1}]
)
def test_settings_of_the_sam2_generator(settings: dict[str, Any]) -> None:
    records = SAM2AutomaticMaskGenerator(small_sam2(), **LOOSE, **settings).generate(IMAGE)
    assert records
    assert {tuple(record) for record in records} == {
        ("segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box")
    }
    usual = SAM2AutomaticMaskGenerator(small_sam2(), **LOOSE).generate(IMAGE)
    different = [record["area"] for record in records] != [record["area"] for record in usual]
    assert different == bool(settings)


def test_masks_of_a_frame_are_disjoint_by_an_override() -> None:
    settings = build_sam.parse_overrides(["++model.non_overlap_masks=true"], Sam2Settings())
    predictor = small_sam2(SAM2VideoPredictor, settings)
    state = predictor.init_state([IMAGE, IMAGE])
    for obj_id, x in ((1, 40.0), ("b", 90.0)):
        predictor.add_new_points_or_box(state, 0, obj_id, points=[[x, 40.0]], labels=[1])
    for _, ids, logits in predictor.propagate_in_video(state):
        assert ids == [1, "b"]
        assert ((logits > 0).sum(dim=0) <= 1).all()


def test_overrides_change_the_config() -> None:
    model = build_sam.build_sam2(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="meta",
        hydra_overrides_extra=["++model.max_cond_frames_in_attn=4", "model.memory_temporal_stride_for_eval=2"],
        apply_postprocessing=False,
    )
    assert model.config.memory.max_cond_frames == 4
    assert model.config.memory.temporal_stride == 2
    assert model.sam_mask_decoder.stability_thresh is None
    video = build_sam.build_sam2_video_predictor("sam2_hiera_b+", device="meta", mode="train", vos_optimized=True)
    assert video.training
    assert video.settings.binarize_mask_from_pts_for_mem_enc
    assert video.settings.fill_hole_area == 8
    assert type(video).__name__ == "SAM2VideoPredictorVOS"


@pytest.mark.parametrize("override", ["++model.image_size=512", "model.non_overlap_masks", "++scratch.lr=1"])
def test_other_overrides_are_refused_with_the_whitelist(override: str) -> None:
    with pytest.raises(segany.ConfigError, match=r"(?s)does not take the override.*\n  model\.non_overlap_masks"):
        build_sam.build_sam2("sam2_hiera_t.yaml", device="meta", hydra_overrides_extra=[override])


def test_values_of_overrides_are_checked() -> None:
    with pytest.raises(segany.ConfigError, match="of type bool"):
        build_sam.build_sam2("sam2_hiera_t.yaml", hydra_overrides_extra=["++model.non_overlap_masks=maybe"])


def test_other_options_are_refused() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        build_sam.build_sam2("sam2_hiera_t.yaml", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(segany.ConfigError, match=r"sam2\.1_hiera_t\.yaml"):
        build_sam.build_sam2("configs/sam3.yaml")
    with pytest.raises(segany.UnknownModelError, match=r"facebook/sam2\.1-hiera-tiny"):
        build_sam.build_sam2_hf("facebook/nonsense")


@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 8), ("use_rel_pos", False), ("act_layer", nn.ReLU), ("norm_layer", nn.Identity)]
)
def test_encoders_that_segany_does_not_have_are_refused(name: str, value: Any) -> None:
    given = {"embed_dim": 64, "depth": 1, "num_heads": 2, "use_rel_pos": True, name: value}
    with pytest.raises(segany.ConfigError, match=name):
        segment_anything.modeling.ImageEncoderViT(**given)


# Mistakes raise what the official code raises.


def test_prediction_needs_an_image() -> None:
    for predictor in (SamPredictor(small_sam()), SAM2ImagePredictor(small_sam2())):
        with pytest.raises(RuntimeError, match="set_image"):
            predictor.predict(*POINT)
        predictor.set_image(IMAGE)
        with pytest.raises(AssertionError, match="point_labels"):
            predictor.predict(POINT[0])
        predictor.reset_image() if isinstance(predictor, SamPredictor) else predictor.reset_predictor()
        with pytest.raises(segany.SeganyError, match="no image"):
            predictor.get_image_embedding()


def test_images_of_another_form_are_refused() -> None:
    predictor = SamPredictor(small_sam())
    with pytest.raises(AssertionError, match="BGR"):
        predictor.set_image(IMAGE, image_format="GRAY")
    with pytest.raises(AssertionError, match=r"\[1, 3, h, w\]"):
        predictor.set_torch_image(torch.zeros(1, 3, 100, 100), (100, 100))
    with pytest.raises(ValueError, match="array or a Pillow image"):
        SAM2ImagePredictor(small_sam2()).set_image("photo.jpg")  # type: ignore[arg-type]


def test_mistakes_in_video(tmp_path: Path) -> None:
    predictor = small_sam2(SAM2VideoPredictor)
    with pytest.raises(segany.VideoError, match="no images"):
        predictor.init_state(str(tmp_path))
    state = predictor.init_state([IMAGE])
    with pytest.raises(RuntimeError, match="nothing to track"):
        next(iter(predictor.propagate_in_video(state)))
    with pytest.raises(ValueError, match="together"):
        predictor.add_new_points_or_box(state, 0, 1, points=[[1, 2]])
    with pytest.raises(ValueError, match="clear_old_points"):
        predictor.add_new_points_or_box(state, 0, 1, box=[0, 0, 9, 9], clear_old_points=False)
    assert state["obj_ids"] == []
    with pytest.raises(RuntimeError, match="no object 5"):
        predictor.remove_object(state, 5, strict=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(small_sam().state_dict(), path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        segment_anything.sam_model_registry["vit_b"](str(path))


def test_everything_works_under_autocast() -> None:
    sam, sam2, video = small_sam(), small_sam2(), small_sam2(SAM2VideoPredictor)
    expected = predict(sam)[2]
    with torch.autocast("cpu", torch.bfloat16):
        low_res = predict(sam)[2]
        assert all(np.isfinite(one).all() for one in predict(sam2))
        assert SamAutomaticMaskGenerator(sam, **LOOSE).generate(IMAGE)
        assert SAM2AutomaticMaskGenerator(sam2, use_m2m=True, **LOOSE).generate(IMAGE)
        state = video.init_state([IMAGE, IMAGE])
        video.add_new_points_or_box(state, 0, 1, points=POINT[0], labels=POINT[1], box=[20, 10, 90, 80])
        video.add_new_mask(state, 0, 2, IMAGE[..., 0] > 99)
        assert len(list(video.propagate_in_video(state))) == 2
    assert np.abs(low_res - expected).max() < 0.1 * np.abs(expected).max()
