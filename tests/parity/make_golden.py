"""Makes the expected values in tests/parity/golden by running the official code.

Run it with an interpreter that has segment-anything and MobileSAM installed, and with one that has
transformers, from the root of the repository:

    PYTHON -m tests.parity.make_golden --mobile-sam mobile_sam.pt
    PYTHON -m tests.parity.make_golden --transformers

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
from tests.parity.cases import SMALL, SMALL_PROMPTS, small_masks, small_pixels
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
    arguments = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    with torch.no_grad():
        if arguments.transformers:
            make_small_transformers()
        else:
            make_small_vit()
            make_small_tiny_vit()
            make_vit("b")
            make_vit("h")
            if arguments.mobile_sam:
                make_mobile_sam(arguments.mobile_sam)
