"""Projects with real images and difficult masks, and what they hold, for tests of exchange."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.store_for_tests import new_id

from segany.core.rle import encode_masks
from segany.store import Change, Label, NewItem, Store

SIZE_HW = (24, 32)
NAMES = ("a.png", "left/0001.png", "right/0001.png", "größe/été 図.png", "turned.jpg")


def picture(seed: int, form: str = "PNG", *, orientation: int = 1, size_hw: tuple[int, int] = SIZE_HW) -> bytes:
    """An image that is shown upright with a size; with an orientation, it is stored turned."""
    height, width = size_hw
    stored = (width, height) if orientation >= 5 else (height, width)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*stored, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, format=form, **({"exif": exif} if orientation > 1 else {}))
    return buffer.getvalue()


def add_picture(store: Store, name: str, data: bytes, size_hw: tuple[int, int] = SIZE_HW) -> str:
    height, width = size_hw
    media_type = "image/jpeg" if name.endswith(".jpg") else "image/png"
    sha256 = store.blobs.put(data, media_type, width, height)
    return store.items.add([NewItem(name, sha256, width, height, media_type, len(data))])[0]


def add_pictures(store: Store) -> list[str]:
    return [
        add_picture(store, name, picture(seed, "JPEG", orientation=6) if name.endswith(".jpg") else picture(seed))
        for seed, name in enumerate(NAMES)
    ]


def mask(*rows: tuple[slice, slice], size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    made = np.zeros(size_hw, dtype=np.bool_)
    for row in rows:
        made[row] = True
    return made


def counts_of(one: np.ndarray) -> str:
    return encode_masks(one)[0]["counts"]


def difficult_masks() -> dict[str, np.ndarray]:
    """Masks that do not overlap: holes, many parts, parts that touch at a corner, the border, one pixel."""
    ring = mask((slice(0, 9), slice(0, 12)))
    ring[2:4, 2:4] = ring[3:7, 6:10] = False
    ring[4:6, 7:9] = True  # an island in a hole
    parts = mask()
    parts[12:20:2, 0:12:3] = True
    corners = mask((slice(12, 14), slice(14, 16)), (slice(14, 16), slice(16, 18)))
    return {
        "ring": ring,
        "parts": parts,
        "corners": corners,
        "border": mask((slice(0, 24), slice(30, 32))),
        "pixel": mask((slice(23, 24), slice(0, 1))),
        "plain": mask((slice(3, 9), slice(15, 20))),
    }


def add_object(store: Store, item_id: str, one: np.ndarray, label_id: int | None = None, **values: Any) -> str:
    change = Change(new_id(), new_id(), None, counts_of(one), label_id=label_id, **values)
    store.annotations.save(item_id, new_id(), [change], "ada")
    return change.object_id


def fill(store: Store) -> None:
    """A project with all that is difficult, and without overlaps."""
    store.labels.replace(1, [Label(1, "cell"), Label(2, "été \u56f3"), Label(3, "never used")], "ada")
    items = add_pictures(store)
    for place, (name, one) in enumerate(difficult_masks().items()):
        add_object(store, items[0], one, 1 + place % 2, z=float(place), attributes={"name": name, "size": 2.5})
    add_object(store, items[1], difficult_masks()["ring"], 1)
    add_object(store, items[2], difficult_masks()["parts"], 2)
    add_object(store, items[3], difficult_masks()["corners"], 2)
    add_object(store, items[4], difficult_masks()["border"], 1)
    store.items.set_state(items[2], "done")


def content(store: Store, *, facts: bool = True) -> dict[str, list[Any]]:
    """The objects of each image in the order of drawing: mask, label and, with `facts`, attributes."""
    names = {label.id: label.name for label in store.labels.current().labels}
    return {
        item.name: [
            (state.counts, names.get(state.label_id), *([dict(state.attributes)] if facts else []))
            for state in store.annotations.objects(item.id)
        ]
        for item in store.items.iterate()
    }


def masks_only(held: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """The masks of each image, in any order."""
    return {name: sorted(state[0] for state in states) for name, states in held.items()}


def make_zip(path: Path, members: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
