"""The worker for the official SAM 2 code, with the tiny model of version 2.1."""

from __future__ import annotations

import numpy as np
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor

from benchmarks.protocol import Arrays, Call, Job, serve

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


def embed(job: Job) -> Call:
    """Image to embedding and finer features."""
    predictor, image = SAM2ImagePredictor(build_sam2(CONFIG, job.weights, device=job.device)), job.pixels()

    def call() -> Arrays:
        predictor.set_image(image)
        embedding, details = predictor._features["image_embed"], predictor._features["high_res_feats"]
        arrays = {f"detail_{level}": detail[0].cpu().numpy() for level, detail in enumerate(details)}
        return {"embedding": embedding[0].cpu().numpy(), **arrays}

    return call


def track(job: Job) -> Call:
    """The next frame of a clip, all of which is in memory: encoded, and searched for one object after the other."""
    # What is called post-processing needs a CUDA extension in part, and changes what is remembered.
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
