"""Makes the expected values in tests/parity/golden by running the official code.

Run it with an interpreter that has segment-anything and MobileSAM installed, and with one that has
transformers, from the root of the repository:

    PYTHON -m tests.parity.make_golden --mobile-sam mobile_sam.pt
    PYTHON -m tests.parity.make_golden --transformers

and with one that has the official sam2:

    PYTHON -m tests.parity.make_golden --sam2

segany itself is not imported. Logits are stored in float16, which costs up to 8e-3 where they reach tens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.parity.cases import (
    SAM2_POINTS,
    SMALL,
    SMALL_PROMPTS,
    SMALL_SAM2,
    small_frames,
    small_masks,
    small_object_mask,
    small_pixels,
)
from tests.parity.seeded import seeded_array, seeded_state

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
PHOTOGRAPHS = HERE.parents[1] / "examples" / "images"


def load_seeded(module: torch.nn.Module) -> None:
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.from_numpy(value) for key, value in seeded_state(shapes).items()})
    module.eval()


def decode_official(sam: Any, embedding: torch.Tensor) -> dict[str, np.ndarray]:
    arrays = {}
    for index, prompt in enumerate(SMALL_PROMPTS):
        for with_mask in (False, True):
            points, labels = torch.tensor(prompt["points"]), torch.tensor(prompt["labels"])
            boxes = points[:, labels[0] >= 2].reshape(1, 1, 4) if 2 in prompt["labels"][0] else None
            kept = (labels[0] == 0) | (labels[0] == 1)
            given = (points[:, kept], labels[:, kept]) if kept.any() else None
            masks = small_masks() if with_mask else None
            sparse, dense = sam.prompt_encoder(points=given, boxes=boxes, masks=masks)
            low, iou = sam.mask_decoder(
                image_embeddings=embedding, image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=prompt["multimask"],
            )  # fmt: skip
            name = f"{index}{'_mask' if with_mask else ''}"
            arrays[f"low_{name}"], arrays[f"iou_{name}"] = low[0].numpy(), iou[0].numpy()
    return arrays


def make_small_vit() -> None:
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    size, width = SMALL["input_size"], SMALL["width"]
    sam = Sam(
        ImageEncoderViT(
            img_size=size, embed_dim=width, depth=SMALL["depth"], num_heads=SMALL["heads"], window_size=14,
            use_rel_pos=True, global_attn_indexes=(SMALL["global_block"],), out_chans=256,
            norm_layer=lambda channels: torch.nn.LayerNorm(channels, eps=1e-6),
        ),
        PromptEncoder(256, (size // 16, size // 16), (size, size), 16),
        MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
    )  # fmt: skip
    load_seeded(sam)
    embedding = sam.image_encoder(small_pixels())
    np.savez_compressed(GOLDEN / "small_vit.npz", embedding=embedding[0].numpy(), **decode_official(sam, embedding))


def make_small_tiny_vit() -> None:
    from mobile_sam.modeling import TinyViT

    encoder = TinyViT(
        img_size=SMALL["input_size"], embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2], num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
    )  # fmt: skip
    load_seeded(encoder)
    # Its forward is written for an input of 1024, so the parts are called one by one.
    x = encoder.patch_embed(small_pixels())
    for layer in encoder.layers:
        x = layer(x)
    embedding = encoder.neck(x.view(1, 16, 16, -1).permute(0, 3, 1, 2))
    np.savez_compressed(GOLDEN / "small_tiny_vit.npz", embedding=embedding[0].numpy())


def make_small_transformers() -> None:
    from transformers import SamConfig, SamModel, SamVisionConfig

    size, width = SMALL["input_size"], SMALL["width"]
    vision = SamVisionConfig(
        hidden_size=width, num_hidden_layers=SMALL["depth"], num_attention_heads=SMALL["heads"], image_size=size,
        mlp_dim=4 * width, global_attn_indexes=[SMALL["global_block"]], attn_implementation="eager",
    )  # fmt: skip
    prompt = {"image_size": size, "image_embedding_size": size // 16}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt))
    load_seeded(model)
    # A released checkpoint holds one position matrix, under both names.
    key = "shared_image_embedding.positional_embedding"
    model.shared_image_embedding.positional_embedding.copy_(torch.from_numpy(seeded_array(key, (2, 128))))
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    out = model(
        pixel_values=small_pixels(), input_points=torch.tensor([[[[60.0, 80.0]]]]), input_labels=torch.tensor([[[1]]]),
        multimask_output=True,
    )  # fmt: skip
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    (GOLDEN / "small_transformers.json").write_text(json.dumps(shapes, indent=0) + "\n")
    np.savez_compressed(
        GOLDEN / "small_transformers.npz",
        embedding=model.get_image_embeddings(small_pixels())[0].numpy(),
        low=out.pred_masks[0, 0].numpy(),
        iou=out.iou_scores[0, 0].numpy(),
    )


def make_small_sam2_transformers() -> None:
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    size, width = SMALL["input_size"], SMALL_SAM2["width"]
    widths = [width, 2 * width, 4 * width, 8 * width]
    backbone = Sam2HieraDetConfig(
        hidden_size=width, image_size=[size, size], blocks_per_stage=list(SMALL_SAM2["depths"]),
        embed_dim_per_stage=widths, global_attention_blocks=list(SMALL_SAM2["global_blocks"]),
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[size // 4] * 2, [size // 8] * 2, [size // 16] * 2],
    )  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config={"image_size": size}, image_size=size,
        memory_attention_rope_feat_sizes=[size // 16] * 2,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    load_seeded(model)
    key = "shared_image_embedding.positional_embedding"
    model.shared_image_embedding.positional_embedding.copy_(torch.from_numpy(seeded_array(key, (2, 128))))
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    features = model.get_image_features(small_pixels())
    image = features.fpn_hidden_states[-1].permute(1, 2, 0).unflatten(2, (size // 16, size // 16))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    (GOLDEN / "small_sam2_transformers.json").write_text(json.dumps(shapes, indent=0) + "\n")
    memory = torch.from_numpy(np.random.default_rng(3).standard_normal((256 + 4, 1, 64), dtype=np.float32))
    attended = model.memory_attention(
        current_vision_features=features.fpn_hidden_states[-1],
        current_vision_position_embeddings=features.fpn_position_encoding[-1],
        memory=memory, memory_posision_embeddings=torch.zeros_like(memory), num_object_pointer_tokens=4,
    )  # fmt: skip
    np.savez_compressed(
        GOLDEN / "small_sam2_transformers.npz",
        embedding_every8=image[0, ::8].numpy(),
        attended_every8=attended.reshape(256, 256)[:, ::8].numpy(),
    )


def make_small_sam2(version: str) -> None:
    """The official model with what its builder switches on by default, but for the filling of holes."""
    from sam2.build_sam import build_sam2_video_predictor

    size, width = SMALL["input_size"], SMALL_SAM2["width"]
    trunk, attention = "++model.image_encoder.trunk", "++model.memory_attention.layer"
    overrides = [
        f"++model.image_size={size}",
        f"{trunk}.embed_dim={width}",
        f"{trunk}.stages={list(SMALL_SAM2['depths'])}",
        f"{trunk}.global_att_blocks={list(SMALL_SAM2['global_blocks'])}",
        f"++model.image_encoder.neck.backbone_channel_list={[8 * width, 4 * width, 2 * width, width]}",
        f"{attention}.self_attention.feat_sizes={[size // 16] * 2}",
        f"{attention}.cross_attention.feat_sizes={[size // 16] * 2}",
    ]
    model = build_sam2_video_predictor(
        f"configs/sam{version}/sam{version}_hiera_t.yaml", device="cpu", hydra_overrides_extra=overrides
    )
    load_seeded(model)
    arrays = {}
    for name in ("points", "mask", "hidden"):
        if name == "hidden":  # the object is nowhere
            model.sam_mask_decoder.pred_obj_score_head.layers[2].bias.fill_(-100)
        for step, out in enumerate(track_official(model, with_mask=name == "mask")):
            arrays[f"{name}{step}_low"] = out["pred_masks"][0, 0].numpy()
            arrays[f"{name}{step}_pointer"] = out["obj_ptr"][0].numpy()
            arrays[f"{name}{step}_score"] = out["object_score_logits"][0].numpy()
            arrays[f"{name}{step}_memory_every4"] = out["maskmem_features"][0, ::4].numpy()
    np.savez_compressed(GOLDEN / f"small_sam{version}.npz", **arrays)


def track_official(model: Any, *, with_mask: bool) -> list[dict[str, torch.Tensor]]:
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    points = {"point_coords": torch.tensor(SAM2_POINTS["points"]), "point_labels": torch.tensor(SAM2_POINTS["labels"])}
    for frame, pixels in enumerate(small_frames()):
        _, features, positions, sizes = model._prepare_backbone_features(model.forward_image(pixels))
        first = frame == 0
        out = model.track_step(
            frame_idx=frame, is_init_cond_frame=first, current_vision_feats=features,
            current_vision_pos_embeds=positions, feat_sizes=sizes,
            point_inputs=None if with_mask or not first else points,
            mask_inputs=small_object_mask()[None] if with_mask and first else None,
            output_dict=outputs, num_frames=100, run_mem_encoder=not first,
        )  # fmt: skip
        if first:  # the predictor encodes prompted frames later, from low-res logits
            high_res = torch.nn.functional.interpolate(out["pred_masks"], pixels.shape[-2:], mode="bilinear")
            out["maskmem_features"], out["maskmem_pos_enc"] = model._encode_new_memory(
                features, sizes, high_res, out["object_score_logits"], is_mask_from_pts=True
            )
        outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][frame] = out
    return [*outputs["cond_frame_outputs"].values(), *outputs["non_cond_frame_outputs"].values()]


def make_vit(size: str) -> None:
    from segment_anything import SamPredictor, sam_model_registry

    sam = sam_model_registry[f"vit_{size}"]()
    load_seeded(sam)
    predictor = SamPredictor(sam)
    predictor.set_image(np.array(Image.open(PHOTOGRAPHS / "coffee.png").convert("RGB")))
    _, iou, low = predictor.predict(
        point_coords=np.array([[300, 200]]), point_labels=np.array([1]), multimask_output=True
    )
    embedding = predictor.get_image_embedding()[0, ::16].numpy().astype(np.float16)
    np.savez_compressed(GOLDEN / f"vit_{size}.npz", embedding_every16=embedding, low=low[:, ::4, ::4], iou=iou)


def make_mobile_sam(checkpoint: Path) -> None:
    from mobile_sam import SamPredictor, sam_model_registry
    from pycocotools import mask as coco_mask

    predictor = SamPredictor(sam_model_registry["vit_t"](checkpoint=str(checkpoint)).eval())
    for path in sorted(PHOTOGRAPHS.glob("*.png")):
        image = np.array(Image.open(path).convert("RGB"))
        predictor.set_image(image)
        cases: list[dict[str, Any]] = []
        arrays = {}
        mask_input = None
        for case in prompts_for(*image.shape[:2]):
            masks, iou, low = predictor.predict(
                point_coords=None if "points_xy" not in case else np.array(case["points_xy"]),
                point_labels=None if "labels" not in case else np.array(case["labels"]),
                box=None if "box_xyxy" not in case else np.array(case["box_xyxy"]),
                mask_input=mask_input if case["feeds_back"] else None,
                multimask_output=case["multimask"],
            )
            if mask_input is None:
                mask_input = low[iou.argmax()][None]
            arrays[f"low_{len(cases)}"] = low[:, ::4, ::4].astype(np.float16)
            rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
            rle_strings = [rle["counts"].decode() for rle in rles]
            cases.append({**case, "iou": [round(float(value), 6) for value in iou], "rle_counts": rle_strings})
        arrays["embedding_every16"] = predictor.get_image_embedding()[0, ::16].numpy().astype(np.float16)
        np.savez_compressed(GOLDEN / f"mobile_sam_{path.stem}.npz", **arrays)
        (GOLDEN / f"mobile_sam_{path.stem}.json").write_text(json.dumps(cases) + "\n")


def prompts_for(height: int, width: int) -> list[dict[str, Any]]:
    """Points, several points, boxes, a box and a point, and a mask with points; three masks and one."""

    def at(*fractions: float) -> list[float]:
        return [round(f * (width, height)[i % 2]) for i, f in enumerate(fractions)]

    box = at(0.2, 0.25, 0.7, 0.8)
    forms: list[dict[str, Any]] = [
        {"points_xy": [at(0.45, 0.4)], "labels": [1]},
        {"points_xy": [at(0.8, 0.45)], "labels": [1]},
        {"points_xy": [at(0.28, 0.31), at(0.55, 0.62)], "labels": [1, 0]},
        {"points_xy": [at(0.3, 0.5), at(0.4, 0.55), at(0.9, 0.9)], "labels": [1, 1, 0]},
        {"box_xyxy": box},
        {"box_xyxy": box, "points_xy": [at(0.45, 0.5)], "labels": [0]},
    ]
    cases = [{**form, "multimask": multi, "feeds_back": False} for form in forms for multi in (True, False)]
    fed = {"points_xy": [at(0.45, 0.4), at(0.8, 0.45)], "labels": [1, 0], "multimask": False, "feeds_back": True}
    return [*cases, fed]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mobile-sam", type=Path, help="the official mobile_sam.pt; without it, the real cases are kept"
    )
    parser.add_argument("--transformers", action="store_true", help="make only the transformers case")
    parser.add_argument("--sam2", action="store_true", help="make only the cases of SAM 2")
    arguments = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    with torch.no_grad():
        if arguments.transformers:
            make_small_transformers()
            make_small_sam2_transformers()
        elif arguments.sam2:
            make_small_sam2("2")
            make_small_sam2("2.1")
        else:
            make_small_vit()
            make_small_tiny_vit()
            make_vit("b")
            make_vit("h")
            if arguments.mobile_sam:
                make_mobile_sam(arguments.mobile_sam)
