"""Contents of track files: SA-V and YouTube-VIS JSON, DAVIS label images, NumPy archives.

All take the `Instances` of each frame that has results, by frame number.
"""

from __future__ import annotations

import io
import itertools
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from segany.core.arrays import BoolArray, IntArray, SizeHW
from segany.core.errors import OutputError
from segany.core.frame_result import FrameResult
from segany.core.instance import NO_ID, Category
from segany.core.instances import Instances
from segany.core.rle import Rle, coco_bbox_xywh, encode_masks
from segany.imaging.frames import FrameSource

DEFAULT_FRAME_RATE = 24.0
"""Frames per second of sources without a frame rate, such as a folder of images; that of the SA-V dataset."""

SMALL_AREA, LARGE_AREA = 32**2, 96**2
"""Mean areas in pixels at which SA-V divides masklets into small, medium and large."""

MAX_LABEL = 255
"""Largest object id in an image with a palette."""

LABEL_PNG_COMPRESSION = 6
"""Compression level, 0..9. Label images are so uniform that a high level takes little time."""

DEFAULT_CATEGORY = "object"
"""Category of objects without one, in formats that need one."""


def frame_rate_of(source: FrameSource) -> float:
    """Frames per second of a source, `DEFAULT_FRAME_RATE` where it has no frame rate."""
    return source.frame_rate or DEFAULT_FRAME_RATE


def to_sav(
    frames: Mapping[int, Instances], source: FrameSource, name: str, prompted: Mapping[int, int]
) -> dict[str, Any]:
    """The content of an annotation file of the SA-V dataset, with all fields that can be known.

    `masklet` has an entry for every frame of the video, where the dataset has every fourth. Frames without results
    have empty masks; `masklet_frame_count` says how many have results. `video_environment` and `video_split` are
    left out, and the stability score is null, as for all manual masklets.

    Args:
        frames: the objects of each frame that has results, by frame number.
        source: the video.
        name: name of the video.
        prompted: the number of frames with prompts, by object id.
    """
    length = _video_length(frames, source)
    height, width = source.size_hw
    masklets = _masklets(frames)
    empty = encode_masks(np.zeros((1, height, width), dtype=np.bool_))[0]
    sizes = [_mean_area(masklet) for masklet in masklets.values()]
    return {
        "video_id": name,
        "video_duration": length / frame_rate_of(source),
        "video_frame_count": float(length),
        "video_height": float(height),
        "video_width": float(width),
        "video_resolution": float(height * width),
        "masklet": [
            [masklet[frame].rle if frame in masklet else empty for masklet in masklets.values()]
            for frame in range(length)
        ],
        "masklet_id": list(masklets),
        "masklet_size_rel": [size / (height * width) for size in sizes],
        "masklet_size_abs": sizes,
        "masklet_size_bucket": [_bucket(size) for size in sizes],
        "masklet_visibility_changes": [_visibility_changes(masklet) for masklet in masklets.values()],
        "masklet_first_appeared_frame": [_first_visible(masklet) for masklet in masklets.values()],
        "masklet_frame_count": [len(masklet) for masklet in masklets.values()],
        "masklet_edited_frame_count": [prompted.get(object_id, 0) for object_id in masklets],
        "masklet_type": ["manual"] * len(masklets),
        "masklet_stability_score": None,
        "masklet_num": len(masklets),
    }


def to_coco_video(frames: Mapping[int, Instances], source: FrameSource, name: str) -> dict[str, Any]:
    """A video in the format of YouTube-VIS: one annotation per object, with lists over all frames of the video.

    Where an object is not visible or has no result, its mask, box and area are null. `scores` are object scores,
    null without a result. Objects without a category have the category "object".

    Args:
        frames: the objects of each frame that has results, by frame number.
        source: the video.
        name: name of the video.
    """
    length = _video_length(frames, source)
    height, width = source.size_hw
    category_ids, categories = _categories(frames)
    annotations = []
    for number, (object_id, masklet) in enumerate(_masklets(frames).items(), start=1):
        items = [masklet.get(frame) for frame in range(length)]
        visible = [item if item and item.area else None for item in items]
        annotations.append(
            {
                "id": number,
                "video_id": 1,
                "category_id": category_ids[object_id],
                "object": object_id,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": length,
                "segmentations": [item.rle if item else None for item in visible],
                "bboxes": [list(coco_bbox_xywh(item.rle)) if item else None for item in visible],
                "areas": [item.area if item else None for item in visible],
                "scores": [item.score if item else None for item in items],
            }
        )
    video = {
        "id": 1,
        "width": width,
        "height": height,
        "length": length,
        "file_names": [f"{name}/{source.frame_file_name(frame)}" for frame in range(length)],
    }
    return {
        "info": {"description": "Masks made with segany"},
        "videos": [video],
        "categories": [{"id": item.id, "name": item.name, "supercategory": item.supercategory} for item in categories],
        "annotations": annotations,
    }


def label_png(result: FrameResult) -> bytes:
    """A PNG with the palette of DAVIS in which a pixel is the id of its object, and 0 where there is none.

    Where objects overlap, the one with the higher score has the pixel; of equal scores the one with the higher id.

    Raises:
        OutputError: an object id is not 1 to 255.
    """
    check_palette_ids(result.object_ids)
    labels = np.zeros(result.size_hw, dtype=np.uint8)
    scores = np.nan_to_num(result.scores, nan=-np.inf)
    for index in np.lexsort((result.instances.object_ids, scores)):
        labels[result.masks[index]] = result.object_ids[index]
    image = Image.fromarray(labels)
    image.putpalette(davis_palette().tobytes())  # makes it an image of palette indices
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=LABEL_PNG_COMPRESSION)
    return buffer.getvalue()


def check_palette_ids(object_ids: Iterable[int]) -> None:
    """Raise `OutputError` where an object id does not fit into an image with a palette."""
    for object_id in object_ids:
        if not 0 < object_id <= MAX_LABEL:
            raise OutputError(
                f"masks-png holds object ids from 1 to {MAX_LABEL}, and one is {object_id}. Choose other ids, or "
                "another format, such as sav."
            )


def davis_palette() -> npt.NDArray[np.uint8]:
    """uint8 [256, 3], the colors of the DAVIS and PASCAL VOC datasets.

    The bits of the index in threes, lowest first, are the bits of red, green and blue, highest first.
    """
    index = np.arange(256)[:, None]
    channel = np.arange(3)[None]
    colors = sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
    return np.asarray(colors, dtype=np.uint8)


def write_npz(frames: Mapping[int, Instances], size_hw: SizeHW, path: Path) -> None:
    """Write a NumPy archive frame by frame, since the dense masks of a whole video may not fit into memory.

    It has `frames` int64 [T], `object_ids` int64 [O], `scores` float32 [T, O] (NaN where an object has no
    result) and `masks` bool [T, O, H, W].

    Args:
        frames: the objects of each frame that has results, by frame number.
        size_hw: size of the video.
        path: path of the file.
    """
    numbers, ids = np.array(sorted(frames), dtype=np.int64), _object_ids(frames)
    scores = np.full((len(numbers), len(ids)), np.nan, dtype=np.float32)
    for row, number in zip(scores, numbers.tolist(), strict=True):
        row[np.searchsorted(ids, frames[number].object_ids)] = frames[number].scores
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in {"frames": numbers, "object_ids": ids, "scores": scores}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        header = {"descr": "|b1", "fortran_order": False, "shape": (len(numbers), len(ids), *size_hw)}
        with archive.open("masks.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for number in numbers.tolist():
                file.write(_dense_masks(frames[number], ids).tobytes())


def _dense_masks(instances: Instances, ids: IntArray) -> BoolArray:
    """bool [O, H, W], the masks of the objects `ids`, empty where there is no result."""
    masks = np.zeros((len(ids), *instances.size_hw), dtype=np.bool_)
    for index, row in enumerate(np.searchsorted(ids, instances.object_ids)):
        masks[row] = instances.mask(index)
    return masks


def _object_ids(frames: Mapping[int, Instances]) -> IntArray:
    """int64 [O], the objects of all frames, ascending."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(item.object_ids for item in frames.values())]))


def _categories(frames: Mapping[int, Instances]) -> tuple[dict[int, int], list[Category]]:
    """The category id of each object, and all categories. Without one, an object has a category named "object"."""
    known: dict[int, Category] = {}
    category_ids = dict.fromkeys(_object_ids(frames).tolist(), NO_ID)
    for _, instances in sorted(frames.items()):
        known |= {category.id: category for category in instances.categories}
        for object_id, category_id in zip(instances.object_ids, instances.category_ids, strict=True):
            if category_id != NO_ID:
                category_ids[int(object_id)] = int(category_id)
    if not known or NO_ID in category_ids.values():
        named = [category.id for category in known.values() if category.name == DEFAULT_CATEGORY]
        default_id = named[0] if named else next(number for number in itertools.count(1) if number not in known)
        known.setdefault(default_id, Category(default_id, DEFAULT_CATEGORY, supercategory=DEFAULT_CATEGORY))
        category_ids = {key: default_id if item == NO_ID else item for key, item in category_ids.items()}
    return category_ids, [known[category_id] for category_id in sorted(known)]


class _MaskletFrame(NamedTuple):
    """One object in one frame, measured once."""

    rle: Rle
    area: int
    score: float | None


def _masklets(frames: Mapping[int, Instances]) -> dict[int, dict[int, _MaskletFrame]]:
    """The objects in ascending order, each with its frames in ascending order."""
    masklets: dict[int, dict[int, _MaskletFrame]] = {object_id: {} for object_id in _object_ids(frames).tolist()}
    for frame, instances in sorted(frames.items()):
        columns = (instances.object_ids.tolist(), instances.rles, instances.areas.tolist(), instances.scores.tolist())
        for object_id, rle, area, score in zip(*columns, strict=True):
            masklets[object_id][frame] = _MaskletFrame(rle, area, None if math.isnan(score) else score)
    return masklets


def _video_length(frames: Mapping[int, Instances], source: FrameSource) -> int:
    """Return the number of frames of the video, or as many as are known."""
    return max(source.count or 0, *(frame + 1 for frame in frames), 0)


def _mean_area(masklet: Mapping[int, _MaskletFrame]) -> float:
    areas = [item.area for item in masklet.values() if item.area]
    return sum(areas) / len(areas) if areas else 0.0


def _bucket(area: float) -> str:
    if area < SMALL_AREA:
        return "small"
    return "medium" if area < LARGE_AREA else "large"


def _visibility_changes(masklet: Mapping[int, _MaskletFrame]) -> int:
    """Count how often the object becomes hidden or visible after its first appearance, in frames with results."""
    visible = [item.area > 0 for item in masklet.values()]
    since = visible[visible.index(True) :] if True in visible else []
    return sum(one != other for one, other in itertools.pairwise(since))


def _first_visible(masklet: Mapping[int, _MaskletFrame]) -> int:
    """Return the first frame in which the object is visible; 0 if there is none."""
    return next((frame for frame, item in masklet.items() if item.area), 0)
