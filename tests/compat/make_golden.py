"""Makes the expected values in tests/compat/golden by running the official packages.

Run it with an interpreter that has segment-anything, MobileSAM and sam2 installed, from the root of the repository:

    PYTHON -m tests.compat.make_golden --mobile-sam mobile_sam.pt
"""

from __future__ import annotations

import argparse
import inspect
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.compat import programs
from tests.parity.cases import SMALL, SMALL_SAM2
from tests.parity.make_golden import PHOTOGRAPHS, load_seeded

GOLDEN = Path(__file__).parent / "golden"
EVERY = 7
"""Large outputs are stored as every seventh value and a checksum of the signs."""

AUTOMATIC = {
    "points_per_side": 6,
    "crop_n_layers": 1,
    "crop_n_points_downscale_factor": 2,
    "min_mask_region_area": 100,
    "output_mode": "coco_rle",
}


def save(name: str, outputs: dict[str, np.ndarray]) -> None:
    np.savez_compressed(GOLDEN / f"{name}.npz", **{key: thinned(value) for key, value in outputs.items()})


def thinned(value: np.ndarray) -> np.ndarray:
    """The values of a small array, and every seventh value of a large one."""
    value = np.asarray(value)
    flat = value.ravel() if value.size < 2000 else value.ravel()[::EVERY]
    return flat.astype(np.float16) if flat.dtype == np.float32 and value.size >= 2000 else flat


def signatures(packages: list[Any]) -> dict[str, list[str]]:
    """Names and defaults of the arguments of every public function, class and method of the modules."""
    found: dict[str, list[str]] = {}
    for module in packages:
        for name, item in vars(module).items():
            if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
                continue
            found[f"{module.__name__}:{name}"] = arguments_of(item)
            for method_name in vars(item) if inspect.isclass(item) else ():
                public = not method_name.startswith("_")
                if public and callable(getattr(item, method_name)):
                    found[f"{module.__name__}:{name}.{method_name}"] = arguments_of(getattr(item, method_name))
    return found


def arguments_of(item: Any) -> list[str]:
    """The arguments of a callable: `name`, `name=default`, or `*name` and `**name` for any others."""
    arguments = []
    for one in inspect.signature(item).parameters.values():
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        arguments.append(stars + one.name + ("" if one.default is one.empty else f"={one.default!r}"))
    return arguments


def small_sam2(version: str) -> Any:
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
    model.fill_hole_area = 0  # it needs a CUDA extension
    attend = model.memory_attention.forward
    # Memories are bfloat16. Without object pointers beside them, the official code needs autocast.
    model.memory_attention.forward = lambda memory, **given: attend(memory=memory.float(), **given)
    return model


def make_frames() -> None:
    programs.FRAMES.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        image = np.roll(programs.photograph(5), 6 * number, axis=1)
        Image.fromarray(image).save(programs.FRAMES / f"{number:05d}.jpg", quality=90)


def main() -> None:
    import mobile_sam
    import mobile_sam.build_sam
    import sam2.automatic_mask_generator
    import sam2.build_sam
    import sam2.sam2_image_predictor
    import sam2.sam2_video_predictor
    import segment_anything
    import segment_anything.build_sam
    import segment_anything.modeling.image_encoder
    import segment_anything.modeling.mask_decoder
    import segment_anything.modeling.prompt_encoder
    import segment_anything.modeling.sam
    import segment_anything.modeling.transformer
    import segment_anything.utils.onnx

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mobile-sam", type=Path, required=True, help="the official mobile_sam.pt")
    checkpoint = parser.parse_args().mobile_sam
    GOLDEN.mkdir(exist_ok=True)
    official = segment_anything
    modules = [
        official.build_sam,
        official.predictor,
        official.automatic_mask_generator,
        official.modeling.image_encoder,
        official.modeling.mask_decoder,
        official.modeling.prompt_encoder,
        official.modeling.sam,
        official.modeling.transformer,
        official.modeling.common,
        official.utils.amg,
        official.utils.onnx,
        official.utils.transforms,
        mobile_sam.build_sam,
        sam2.build_sam,
        sam2.automatic_mask_generator,
        sam2.sam2_image_predictor,
        sam2.sam2_video_predictor,
    ]
    import sys

    modules[0] = sys.modules["segment_anything.build_sam"]  # `segment_anything.build_sam` is a function
    modules[12] = sys.modules["mobile_sam.build_sam"]
    lines = [f"{json.dumps(name)}: {json.dumps(arguments)}" for name, arguments in signatures(modules).items()]
    (GOLDEN / "signatures.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    shapes = mobile_sam.sam_model_registry["vit_t"]().state_dict()
    digest = {key: list(value.shape) for key, value in shapes.items()}
    (GOLDEN / "vit_t_shapes.json").write_text(json.dumps(digest) + "\n")
    make_frames()
    sam = programs.build_small_sam(official.modeling)
    load_seeded(sam)
    save("sam_predictor", programs.use_sam_predictor(official, sam))
    save("sam_calls", programs.call_sam(official, sam))
    save("amg", programs.use_amg_functions(official.utils.amg))
    for version in ("2", "2.1"):
        model = small_sam2(version)
        if version == "2.1":
            predictor = sam2.sam2_image_predictor.SAM2ImagePredictor(model)
            size = SMALL["input_size"]
            predictor._bb_feat_sizes = [(size // 4,) * 2, (size // 8,) * 2, (size // 16,) * 2]  # it assumes 1024
            save("sam2_image", programs.use_sam2_image_predictor(predictor))
            save("sam2_calls", programs.call_sam2_decoder(predictor))
        save(f"sam{version}_video", programs.use_sam2_video_predictor(model))
    mobile = mobile_sam.sam_model_registry["vit_t"](checkpoint=str(checkpoint)).eval()
    image = np.array(Image.open(PHOTOGRAPHS / "coffee.png").convert("RGB"))
    records = mobile_sam.SamAutomaticMaskGenerator(mobile, **AUTOMATIC).generate(image)
    (GOLDEN / "automatic.json").write_text(json.dumps(records) + "\n")


if __name__ == "__main__":
    torch.manual_seed(zlib.crc32(b"segany"))
    with torch.no_grad():
        main()
