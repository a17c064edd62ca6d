"""segment-geospatial on a small GeoTIFF: `CHECKPOINT IMAGE OUT_FOLDER`."""

import sys
from pathlib import Path

import mobile_sam
import numpy as np
import rasterio
import samgeo.samgeo
from PIL import Image
from rasterio.transform import from_origin

checkpoint, path, out = sys.argv[1:]
folder = Path(out)
folder.mkdir(parents=True, exist_ok=True)
pixels = np.array(Image.open(path).convert("RGB"))
scene = str(folder / "scene.tif")
with rasterio.open(
    scene,
    "w",
    driver="GTiff",
    height=pixels.shape[0],
    width=pixels.shape[1],
    count=3,
    dtype="uint8",
    crs="EPSG:32633",
    transform=from_origin(500000, 5200000, 0.5, 0.5),
) as file:
    file.write(pixels.transpose(2, 0, 1))
samgeo.samgeo.sam_model_registry["vit_t"] = mobile_sam.sam_model_registry["vit_t"]
sam = samgeo.samgeo.SamGeo("vit_t", checkpoint=checkpoint, device="cpu", sam_kwargs={"points_per_side": 6})
mask = str(folder / "mask.tif")
sam.generate(scene, mask, unique=True)
sam.tiff_to_gpkg(mask, str(folder / "mask.gpkg"))
prompted = samgeo.samgeo.SamGeo("vit_t", checkpoint=checkpoint, device="cpu", automatic=False)
prompted.set_image(scene)
prompted.predict([[200, 150]], point_labels=1, output=str(folder / "point.tif"))
