"""Videos with annotations and predictions, as files, that the official evaluators were run on.

`golden_video.json` holds what these said of them. Everything follows from the numbers here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_HW = (60, 80)
FRAMES = 10
PALETTE = [0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200, *range(256), *([9] * (768 - 268))]

SAV_FRAMES = {"000": range(10), "001": range(3, 10), "002": range(6), "003": range(10)}
"""In which frames each object of the SA-V video is annotated: one starts late, one ends early."""


def disc(center_xy: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return np.hypot(columns - center_xy[0], rows - center_xy[1]) <= radius


def true_mask(number: int, frame: int) -> np.ndarray:
    """Of an object that moves to the right; number 3 is hidden in the first two frames and in the sixth."""
    if number == 3 and frame in (0, 1, 5):
        return np.zeros(SIZE_HW, dtype=bool)
    return disc((14 + 12 * number + 2.5 * frame, 16 + 9 * number), 9 + number)


def logits(number: int, frame: int) -> np.ndarray:
    """What a model predicts, float32 [H, W]: behind the object, too small, and less and less certain."""
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    distance = np.hypot(columns - (14 + 12 * number + 2.0 * frame), rows - (16 + 9 * number))
    return ((8.3 + number - distance) * (1 + 0.3 * number) / (1 + 0.1 * frame)).astype(np.float32)


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    for frame in range(FRAMES):
        Image.new("RGB", SIZE_HW[::-1], (frame * 20, 80, 120)).save(folder / f"{frame:05d}.jpg")


def write_sav(root: Path) -> Path:
    """A video in the layout of SA-V validation, a file an object and frame."""
    write_frames(root / "JPEGImages_24fps" / "clip")
    for number, (name, frames) in enumerate(SAV_FRAMES.items()):
        folder = root / "Annotations_6fps" / "clip" / name
        folder.mkdir(parents=True)
        for frame in frames:
            Image.fromarray(true_mask(number, frame)).save(folder / f"{frame:05d}.png")
    return root


def davis_labels(frame: int) -> np.ndarray:
    """uint8 [H, W]: two objects, the second hidden in frames 1 and 7; void along the top of frames from 4 on."""
    labels = np.zeros(SIZE_HW, dtype=np.uint8)
    labels[true_mask(1, frame)] = 1
    if frame not in (1, 7):
        labels[true_mask(2, frame)] = 2
    if frame >= 4:
        labels[:3] = 255
    if frame == 8:  # all there is is void
        labels[labels < 255] = 0
    return labels


def write_label_map(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette(PALETTE)
    picture.save(path)


def write_davis(root: Path) -> Path:
    """Two videos in the layout of DAVIS, of which ImageSets/2017/val.txt lists one."""
    for name in ("clip", "training"):
        write_frames(root / "JPEGImages" / "480p" / name)
        for frame in range(FRAMES):
            write_label_map(root / "Annotations" / "480p" / name / f"{frame:05d}.png", davis_labels(frame))
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("clip\n")
    (lists / "train.txt").write_text("training\n")
    return root
