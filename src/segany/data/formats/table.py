"""The file formats of annotated images, by their names in the commands."""

from __future__ import annotations

from segany.data.formats.coco import encode_coco
from segany.data.formats.label_map import encode_label_map
from segany.data.formats.masks_png import encode_masks_png
from segany.data.formats.npz import encode_npz, encode_prediction
from segany.data.formats.pictures import encode_cutout, encode_overlay, encode_overlay_jpg, encode_png
from segany.data.formats.polygons import encode_polygons
from segany.data.formats.sa1b import encode_sa1b
from segany.data.formats.writing import Encoder

FORMATS: dict[str, Encoder] = {
    "overlay": encode_overlay,
    "overlay-jpg": encode_overlay_jpg,
    "png": encode_png,
    "cutout": encode_cutout,
    "coco": encode_coco,
    "sa1b": encode_sa1b,
    "label-map": encode_label_map,
    "masks-png": encode_masks_png,
    "polygons": encode_polygons,
    "npz": encode_npz,
    "prediction": encode_prediction,
}
"""The encoder of each format, which makes the content of files without writing them."""


def _offered(*names: str) -> dict[str, Encoder]:
    return {name: FORMATS[name] for name in names}


PROMPT_FORMATS: dict[str, Encoder] = {
    **_offered("overlay", "overlay-jpg", "png", "cutout", "coco"),
    "npz": encode_prediction,  # it has the logits for a mask prompt
    **_offered("polygons"),
}
"""The formats of `segany segment`. Its `npz` holds the whole prediction."""

AUTOMATIC_FORMATS: dict[str, Encoder] = _offered("coco", "sa1b", "label-map", "masks-png", "overlay", "npz", "polygons")
"""The formats of `segany auto`."""

DEFAULT_PROMPT_FORMATS = ("overlay", "png", "coco")
"""An image to look at, masks for any program, and all values as JSON."""

DEFAULT_AUTOMATIC_FORMATS = ("coco", "overlay")
"""All values as JSON, and an image to look at."""
