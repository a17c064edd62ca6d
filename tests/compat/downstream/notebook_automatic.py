"""The cells of the official notebook for automatic masks, with MobileSAM: `CHECKPOINT IMAGE POINTS OUT.json`."""

import json
import sys
import time

import numpy as np
from mobile_sam import SamAutomaticMaskGenerator, sam_model_registry
from PIL import Image

checkpoint, path, points, out = sys.argv[1:]
image = np.array(Image.open(path).convert("RGB"))
sam = sam_model_registry["vit_t"](checkpoint=checkpoint)
mask_generator = SamAutomaticMaskGenerator(sam, points_per_side=int(points), output_mode="coco_rle")
start = time.perf_counter()
masks = mask_generator.generate(image)
seconds = time.perf_counter() - start
with open(out, "w") as file:  # noqa: PTH123 - as programs have it
    json.dump({"seconds": seconds, "masks": masks}, file)
