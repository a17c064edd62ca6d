"""Programs that use the official packages, as functions of what they import.

`make_golden.py` runs them with the official packages, and the tests with the drop-in modules. segany itself is not
imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.parity.cases import SMALL

Outputs = dict[str, np.ndarray]

FRAMES = Path(__file__).parent / "golden" / "frames"

POINT, OUTSIDE = [60.0, 40.0], [-9.0, 120.0]
BOX, OTHER_BOX = [20.0, 10.0, 90.0, 80.0], [50.0, 30.0, 120.0, 95.0]


def photograph(seed: int = 0, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture with some structure: bright discs on noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = random.integers(0, 60, (height, width, 3))
    for color in ((180, 30, 20), (20, 160, 60), (40, 60, 190)):
        cx, cy, radius = random.integers(10, width - 10), random.integers(10, height - 10), random.integers(8, 25)
        image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] += np.array(color)
    return image.clip(0, 255).astype(np.uint8)


def build_small_sam(modeling: Any) -> Any:
    """A SAM of test size, by the constructors of the official code."""
    size, width = SMALL["input_size"], SMALL["width"]
    encoder = modeling.ImageEncoderViT(
        img_size=size,
        embed_dim=width,
        depth=SMALL["depth"],
        num_heads=SMALL["heads"],
        window_size=14,
        use_rel_pos=True,
        global_attn_indexes=(SMALL["global_block"],),
        out_chans=256,
        norm_layer=torch.nn.LayerNorm,
    )
    prompt_encoder = modeling.PromptEncoder(
        embed_dim=256, image_embedding_size=(size // 16, size // 16), input_image_size=(size, size), mask_in_chans=16
    )
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return modeling.Sam(
        encoder, prompt_encoder, decoder, pixel_mean=[120.0, 110.0, 100.0], pixel_std=[60.0, 55.0, 50.0]
    )


def use_sam_predictor(package: Any, sam: Any) -> Outputs:
    """The cells of the official notebook for the predictor."""
    outputs: Outputs = {}

    def keep(name: str, masks: Any, iou: Any, low_res: Any) -> None:
        for part, value in (("masks", masks), ("iou", iou), ("low_res", low_res)):
            outputs[f"{name}_{part}"] = np.asarray(value)

    predictor = package.SamPredictor(sam)
    image = photograph()
    predictor.set_image(image)
    outputs["embedding"] = predictor.get_image_embedding().numpy()
    found = predictor.predict(np.array([POINT]), np.array([1]), multimask_output=True)
    keep("point", *found)
    best = found[2][np.argmax(found[1])][None]
    points, labels = np.array([POINT, OUTSIDE]), np.array([1, 0])
    keep("refined", *predictor.predict(points, labels, mask_input=best, multimask_output=False))
    keep("box", *predictor.predict(box=np.array(BOX), multimask_output=False, return_logits=True))
    keep("box_and_point", *predictor.predict(np.array([POINT]), np.array([0]), np.array(BOX), multimask_output=False))
    keep("corners", *predictor.predict(np.array(BOX).reshape(2, 2), np.array([2, 3]), multimask_output=False))
    boxes = predictor.transform.apply_boxes_torch(torch.tensor([BOX, OTHER_BOX]), image.shape[:2])
    keep("boxes", *predictor.predict_torch(None, None, boxes=boxes, multimask_output=True))

    other = package.SamPredictor(sam)  # a program that keeps embeddings
    other.features, other.is_image_set = predictor.features.clone(), True
    other.original_size, other.input_size = predictor.original_size, predictor.input_size
    keep("kept", *other.predict(np.array([POINT]), np.array([1]), multimask_output=False))

    tensor = torch.as_tensor(photograph(1, 70, 100)[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    predictor.set_torch_image(predictor.transform.apply_image_torch(tensor), (70, 100))
    keep("tensor", *predictor.predict(np.array([POINT]), np.array([1])))
    predictor.set_image(photograph(1, 100, 70), image_format="BGR")
    keep("bgr", *predictor.predict(np.array([[20, 30]]), np.array([1])))
    outputs["sizes"] = np.array([predictor.original_size, predictor.input_size])
    return outputs


def call_sam(package: Any, sam: Any) -> Outputs:
    """The batched call of the model, and the calls that training programs make, with gradients."""
    from_numpy = torch.as_tensor
    resize = package.utils.transforms.ResizeLongestSide(sam.image_encoder.img_size)
    batch = []
    for seed, (height, width) in enumerate([(96, 128), (120, 90)]):
        image = photograph(seed, height, width)
        boxes = resize.apply_boxes_torch(torch.tensor([BOX, OTHER_BOX]), (height, width))
        resized = from_numpy(resize.apply_image(image)).permute(2, 0, 1).contiguous()
        batch.append({"image": resized, "original_size": (height, width), "boxes": boxes})
    batch[1]["point_coords"] = resize.apply_coords_torch(torch.tensor([[POINT], [POINT]]), (120, 90))
    batch[1]["point_labels"] = torch.tensor([[1], [0]])
    outputs: Outputs = {}
    for index, one in enumerate(sam(batch, multimask_output=False)):
        outputs |= {f"{index}_{name}": value.numpy() for name, value in one.items()}
    with torch.enable_grad():
        embedding = sam.image_encoder(sam.preprocess(batch[0]["image"][None].float()))
        sparse, dense = sam.prompt_encoder(points=None, boxes=batch[0]["boxes"], masks=None)
        low_res, iou = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        masks = sam.postprocess_masks(low_res, (192, 256), (96, 128))
        loss = masks.sigmoid().mean() + iou.square().mean()
        names = ["image_encoder.blocks.1.attn.qkv.weight", "mask_decoder.transformer.layers.0.mlp.lin1.weight"]
        parameters = dict(sam.named_parameters())
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    outputs["loss"] = loss.detach().numpy()
    outputs |= {f"gradient_{index}": gradient.numpy() for index, gradient in enumerate(gradients)}
    outputs["dense_pe"] = sam.prompt_encoder.get_dense_pe().numpy()
    outputs["pe_encoding"] = sam.prompt_encoder.pe_layer._pe_encoding(torch.tensor([[[0.25, 0.5]]])).numpy()
    outputs["predict_masks"] = sam.mask_decoder.predict_masks(
        image_embeddings=embedding.detach(),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse.detach(),
        dense_prompt_embeddings=dense.detach(),
    )[1].detach().numpy()  # fmt: skip
    for single, metrics in ((True, False), (False, True)):
        onnx = package.utils.onnx.SamOnnxModel(sam, return_single_mask=single, return_extra_metrics=metrics)
        found = onnx(
            embedding.detach(),
            torch.tensor([[[30.0, 20.0], [40.0, 40.0], [200.0, 150.0]]]),
            torch.tensor([[0.0, 2.0, 3.0]]),
            torch.zeros(1, 1, 64, 64),
            torch.tensor([float(metrics)]),
            torch.tensor([96.0, 128.0]),
        )
        outputs |= {f"onnx_{single}_{index}": value.numpy() for index, value in enumerate(found)}
    return outputs


def use_amg_functions(amg: Any) -> Outputs:
    """The functions of the automatic mask generator."""
    random = np.random.default_rng(2)
    logits = torch.from_numpy(random.standard_normal((5, 20, 30), dtype=np.float32))
    masks = torch.nn.functional.avg_pool2d(logits[:, None], 5, 1, 2)[:, 0] > 0.05
    masks[3], masks[4, 0, 0] = False, True
    rles = amg.mask_to_rle_pytorch(masks)
    boxes = amg.batched_mask_to_box(masks)
    crops, layers = amg.generate_crop_boxes((70, 100), 2, 512 / 1500)
    data = amg.MaskData(boxes=boxes, rles=rles, scores=np.arange(5.0))
    data.filter(torch.tensor([True, False, True, True, False]))
    data.cat(amg.MaskData(boxes=boxes[:1], rles=rles[:1], scores=np.zeros(1)))
    data.filter(torch.tensor([3, 0]))
    data.to_numpy()
    outputs: Outputs = {
        "decoded": np.stack([amg.rle_to_mask(rle) for rle in rles]),
        "areas": np.array([amg.area_from_rle(rle) for rle in rles]),
        "boxes": boxes.numpy(),
        "xywh": amg.box_xyxy_to_xywh(boxes[0]).numpy(),
        "stability": amg.calculate_stability_score(logits, 0.0, 0.5).numpy(),
        "grid": np.concatenate(amg.build_all_layer_point_grids(5, 2, 2)),
        "crops": np.array(crops),
        "layers": np.array(layers),
        "uncropped_boxes": amg.uncrop_boxes_xyxy(boxes, [3, 4, 33, 24]).numpy(),
        "uncropped_points": amg.uncrop_points(torch.ones(2, 2), [3, 4, 33, 24]).numpy(),
        "uncropped_masks": amg.uncrop_masks(masks, [3, 4, 33, 24], 40, 50).numpy(),
        "near_edge": amg.is_box_near_crop_edge(boxes, [30, 0, 60, 20], [0, 0, 60, 20], atol=2.0).numpy(),
        "batches": np.array([len(part) for (part,) in amg.batch_iterator(2, np.arange(5))]),
        "filtered": data["boxes"],
        "filtered_scores": data["scores"],
    }
    for mode in ("holes", "islands"):
        for area in (4, 1000):
            cleaned, changed = amg.remove_small_regions(masks[0].numpy(), area, mode)
            outputs[f"{mode}_{area}"] = np.append(cleaned.ravel(), changed)
    outputs["counts"] = np.concatenate([rle["counts"] for rle in rles])
    outputs["coco"] = np.frombuffer("".join(amg.coco_encode_rle(rle)["counts"] for rle in rles).encode(), np.uint8)
    return outputs


def use_sam2_image_predictor(predictor: Any) -> Outputs:
    """The cells of the official notebook for images."""
    outputs: Outputs = {}

    def keep(name: str, masks: Any, iou: Any, low_res: Any) -> None:
        for part, value in (("masks", masks), ("iou", iou), ("low_res", low_res)):
            outputs[f"{name}_{part}"] = np.asarray(value)

    image = photograph()
    predictor.set_image(image)
    outputs["embedding"] = predictor.get_image_embedding().numpy()
    outputs["feature"] = predictor._features["high_res_feats"][0].numpy()[:, ::4]
    found = predictor.predict(np.array([POINT]), np.array([1]), multimask_output=True)
    keep("point", *found)
    best = found[2][np.argmax(found[1])][None]
    points, labels = np.array([POINT, OUTSIDE]), np.array([1, 0])
    keep("refined", *predictor.predict(points, labels, mask_input=best, multimask_output=False))
    keep("box", *predictor.predict(box=np.array(BOX), multimask_output=False, return_logits=True))
    keep("boxes", *predictor.predict(box=np.array([BOX, OTHER_BOX]), multimask_output=False))
    batch = (np.array([[POINT], [[100.0, 80.0]]]), np.array([[1], [1]]))
    keep("points", *predictor.predict(*batch, box=np.array([BOX, OTHER_BOX]), multimask_output=True))
    labeled = np.array([POINT, POINT, BOX[:2], BOX[2:]])
    keep("labels", *predictor.predict(labeled, np.array([1, -1, 2, 3]), multimask_output=False))
    fractions = (np.array([POINT]) / [128, 96], np.array([1]))
    keep("fractions", *predictor.predict(*fractions, normalize_coords=False))
    predictor.set_image_batch([image, photograph(1, 70, 100)])
    for index, rows in enumerate(
        zip(*predictor.predict_batch([np.array([POINT])] * 2, [np.array([1])] * 2), strict=True)
    ):
        keep(f"batch_{index}", *rows)
    return outputs


def call_sam2_decoder(predictor: Any) -> Outputs:
    """What training programs do after `set_image`: the calls of the parts, with gradients."""
    model = predictor.model
    predictor.set_image(photograph())
    mask_input, points, labels, _ = predictor._prep_prompts(
        np.array([[POINT], [POINT]]), np.array([[1], [0]]), box=None, mask_logits=None, normalize_coords=True
    )
    with torch.enable_grad():
        sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=mask_input)
        low_res, iou, tokens, scores = model.sam_mask_decoder(
            image_embeddings=predictor._features["image_embed"][-1].unsqueeze(0),
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=[level[-1].unsqueeze(0) for level in predictor._features["high_res_feats"]],
        )
        masks = predictor._transforms.postprocess_masks(low_res, predictor._orig_hw[-1])
        parameter = model.sam_mask_decoder.transformer.layers[0].cross_attn_token_to_image.q_proj.weight
        (gradient,) = torch.autograd.grad(masks.sigmoid().mean() + iou.mean(), [parameter])
    maps = model.forward_image(torch.ones(1, 3, model.image_size, model.image_size))
    _, flat, positions, sizes = model._prepare_backbone_features(maps)
    values = {"iou": iou, "tokens": tokens, "scores": scores, "masks": masks, "gradient": gradient}
    return {
        **{name: value.detach().numpy() for name, value in values.items()},
        "flat": flat[-1].numpy(),
        "positions": positions[-1].numpy(),
        "sizes": np.array(sizes),
    }


def use_sam2_video_predictor(predictor: Any) -> Outputs:
    """The cells of the official notebook for video, and what its users do beyond it."""
    outputs: Outputs = {}

    def keep(name: str, frame: int, ids: list[int], logits: torch.Tensor) -> None:
        outputs[f"{name}_frame"], outputs[f"{name}_ids"] = np.array(frame), np.array(ids)
        outputs[f"{name}_logits"] = logits.numpy()[..., ::2, ::2]

    def keep_all(name: str, **options: Any) -> None:
        for frame, ids, logits in predictor.propagate_in_video(state, **options):
            keep(f"{name}_{frame}", frame, list(ids), logits)

    state = predictor.init_state(video_path=str(FRAMES))
    outputs["facts"] = np.array([state["video_height"], state["video_width"], state["num_frames"]])
    outputs["image"] = state["images"][1].numpy()[:, ::4, ::4]
    add = predictor.add_new_points_or_box
    keep("point", *add(state, frame_idx=0, obj_id=7, points=np.array([POINT]), labels=np.array([1], np.int32)))
    more = {"points": np.array([OUTSIDE], np.float32), "labels": np.array([0], np.int32), "clear_old_points": False}
    keep("more", *add(state, frame_idx=0, obj_id=7, **more))
    keep("box", *add(state, frame_idx=1, obj_id=3, box=np.array(BOX, np.float32)))
    mask = np.zeros((96, 128), bool)
    mask[30:60, 40:90] = True
    keep("mask", *predictor.add_new_mask(state, frame_idx=0, obj_id=3, mask=mask))
    keep_all("forward")
    keep("correction", *add(state, 2, 7, points=[[100.0, 80.0]], labels=[1]))
    keep(
        "mask_correction",
        *predictor.add_new_mask(state, 3, 3, torch.from_numpy(mask.T[:96, :96].repeat(2, 1)[:, :128])),
    )
    keep_all("again", start_frame_idx=1, max_frame_num_to_track=2)
    keep_all("reverse", start_frame_idx=3, reverse=True)
    keep("again_on_prompted", *add(state, 0, 7, points=[POINT], labels=[1]))
    keep("new", *add(state, 3, 5, points=[[30.0, 30.0]], labels=[1], box=OTHER_BOX))
    keep("cleared", *predictor.clear_all_prompts_in_frame(state, 0, 3))
    rest, updated = predictor.remove_object(state, 7)
    outputs["rest"] = np.array(rest)
    outputs["updated"] = np.array([frame for frame, _ in updated])
    keep_all("rest")
    predictor.reset_state(state)
    outputs["after_reset"] = np.array(state["obj_ids"])
    keep("after_reset", *predictor.add_new_points(state, 1, 1, [POINT], [1]))
    return outputs
