"""All formats that an annotated image can be written in, by the names that commands have for them."""

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
"""One function a format; it makes bytes and touches no disk."""


def _offered(*names: str) -> dict[str, Encoder]:
    return {name: FORMATS[name] for name in names}


PROMPT_FORMATS: dict[str, Encoder] = {
    **_offered("overlay", "overlay-jpg", "png", "cutout", "coco"),
    "npz": encode_prediction,  # with the logits that the next prompt takes
    **_offered("polygons"),
}
"""What `segany segment` writes. Its `npz` is the whole prediction."""

AUTOMATIC_FORMATS: dict[str, Encoder] = _offered("coco", "sa1b", "label-map", "masks-png", "overlay", "npz", "polygons")
"""What `segany auto` writes."""

DEFAULT_PROMPT_FORMATS = ("overlay", "png", "coco")
"""A picture to look at, masks for any program, and a text with everything."""

DEFAULT_AUTOMATIC_FORMATS = ("coco", "overlay")
"""Everything there is to know, and a picture to look at."""
