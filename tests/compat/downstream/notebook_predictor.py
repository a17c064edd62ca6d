"""The cells of the official notebook for the predictor, with MobileSAM: `CHECKPOINT IMAGE OUT.npz`."""

import sys
import time

import numpy as np
import torch
from mobile_sam import SamPredictor, sam_model_registry
from PIL import Image

checkpoint, path, out = sys.argv[1:]
image = np.array(Image.open(path).convert("RGB"))
height, width = image.shape[:2]
sam = sam_model_registry["vit_t"](checkpoint=checkpoint)
sam.to(device="cpu")
predictor = SamPredictor(sam)
start = time.perf_counter()
predictor.set_image(image)
input_point, input_label = np.array([[0.35 * width, 0.45 * height]]), np.array([1])
masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
seconds = time.perf_counter() - start
results = {"masks": masks, "scores": scores}
input_point = np.array([[0.35 * width, 0.45 * height], [0.6 * width, 0.5 * height]])
mask_input = logits[np.argmax(scores), :, :]
for name, labels in (("both", [1, 1]), ("but", [1, 0])):
    results[name], _, _ = predictor.predict(
        point_coords=input_point,
        point_labels=np.array(labels),
        mask_input=mask_input[None, :, :],
        multimask_output=False,
    )
box = np.array([0.2 * width, 0.25 * height, 0.7 * width, 0.8 * height])
results["box"], _, _ = predictor.predict(point_coords=None, point_labels=None, box=box[None, :], multimask_output=False)
input_boxes = torch.tensor(np.stack([box, box / 2, box / 3 + 40]), device=predictor.device)
transformed_boxes = predictor.transform.apply_boxes_torch(input_boxes, image.shape[:2])
results["boxes"], _, _ = predictor.predict_torch(
    point_coords=None, point_labels=None, boxes=transformed_boxes, multimask_output=False
)
np.savez(out, seconds=seconds, **{name: np.asarray(value) for name, value in results.items()})
