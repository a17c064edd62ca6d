"""The cells of the official notebook for video, with a seeded SAM 2.1: `CHECKPOINT FRAMES OUT.npz`."""

import sys

import numpy as np
import torch
from sam2.build_sam import build_sam2_video_predictor

checkpoint, video_dir, out = sys.argv[1:]
predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", checkpoint, device="cpu")
inference_state = predictor.init_state(video_path=video_dir)
predictor.reset_state(inference_state)
results = {}
for points, labels in (([[210, 350]], [1]), ([[210, 350], [250, 220]], [1, 1])):
    _, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
        inference_state=inference_state,
        frame_idx=0,
        obj_id=1,
        points=np.array(points, dtype=np.float32),
        labels=np.array(labels, np.int32),
    )
results["prompted"] = out_mask_logits
_, _, results["box"] = predictor.add_new_points_or_box(
    inference_state=inference_state, frame_idx=0, obj_id=4, box=np.array([300, 0, 500, 400], dtype=np.float32)
)
for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(inference_state):
    results[f"frame_{out_frame_idx}"] = out_mask_logits
    results[f"ids_{out_frame_idx}"] = torch.tensor(out_obj_ids)
np.savez(
    out, **{name: value.cpu().numpy()[..., ::4, ::4] if value.dim() > 1 else value for name, value in results.items()}
)
