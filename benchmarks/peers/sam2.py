"""The worker for the official SAM 2 code, with the tiny model of version 2.1."""

from __future__ import annotations

import numpy as np
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor

from benchmarks.protocol import Arrays, Call, Job, serve

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


def embed(job: Job) -> Call:
    """Image to embedding and high-resolution features."""
    predictor, image = SAM2ImagePredictor(build_sam2(CONFIG, job.weights, device=job.device)), job.pixels()

    def call() -> Arrays:
        predictor.set_image(image)
        embedding, high_res = predictor._features["image_embed"], predictor._features["high_res_feats"]
        arrays = {f"high_res_feats_{level}": features[0].cpu().numpy() for level, features in enumerate(high_res)}
        return {"embedding": embedding[0].cpu().numpy(), **arrays}

    return call


def track(job: Job) -> Call:
    """Track to the next frame of a clip in memory: encode the frame, then predict one object after the other."""
    # Part of the post-processing requires a CUDA extension, and it changes the memory bank.
    predictor = build_sam2_video_predictor(CONFIG, job.weights, device=job.device, apply_postprocessing=False)
    state = predictor.init_state(job.clip)
    for object_id, point_xy in enumerate(job.points_xy):
        points, labels = np.array([point_xy], dtype=np.float32), np.array([1])
        predictor.add_new_points_or_box(state, frame_idx=0, obj_id=object_id, points=points, labels=labels)
    results = predictor.propagate_in_video(state)

    def call() -> Arrays:
        _, _, mask_logits = next(results)
        mask_logits = mask_logits[:, 0].cpu().numpy()
        return {"masks": mask_logits > 0, "mask_logits": mask_logits}

    return call


if __name__ == "__main__":
    serve({"embed": embed, "track": track}, modules=("sam2", "torchvision"))
