"""`Detections.from_sam` of supervision: `CHECKPOINT IMAGE OUT.npz`."""

import sys

import numpy as np
import supervision as sv
from mobile_sam import SamAutomaticMaskGenerator, sam_model_registry
from PIL import Image

checkpoint, path, out = sys.argv[1:]
image = np.array(Image.open(path).convert("RGB"))
sam = sam_model_registry["vit_t"](checkpoint=checkpoint).to(device="cpu")
result = SamAutomaticMaskGenerator(sam, points_per_side=6).generate(image)
detections = sv.Detections.from_sam(sam_result=result)
annotated = sv.MaskAnnotator(color_lookup=sv.ColorLookup.INDEX).annotate(scene=image.copy(), detections=detections)
np.savez(out, xyxy=detections.xyxy, mask=detections.mask, area=detections.area, annotated=annotated)
