"""Every reader of files that strangers may have made: a small good file, and reading all of it.

Run as a program, it mutates the file of one reader many times in this process, whose memory is bounded, and prints
what was neither read nor refused with a `SeganyError`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.data_for_tests import block, encoded, picture, rle, sa1b_record, save, save_json, save_tar
from tests.robustness.mutations import mutate
from tests.robustness.state_readers import STATE_READERS

from segany import Category, Instances, from_coco, from_sa1b
from segany.core.errors import CheckpointError, ExportError, SeganyError

SECONDS = 10.0
"""Nothing takes longer to refuse."""

MEMORY = 2 * 2**30
"""Bytes beside what the interpreter and its libraries take."""

SIZE_HW = (6, 8)
SESSION_HW = (24, 32)
MASKS = (block(SIZE_HW, 0, 0, 2, 3), block(SIZE_HW, 3, 4, 6, 8))

NEVER_WHOLE = ("checkpoint", "manifest")
"""Readers whose good file would be large: it is read up to where it says what it holds."""

Reader = tuple[Callable[[Path], Path], Callable[[Path], object]]
"""Makes a good file in an empty folder, and reads a file there."""


def _read_dataset(layout: str) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        from segany.data import open_dataset

        root = path if layout in ("coco", "shards") else path.parents[1] if layout in ("masks", "yolo") else path.parent
        dataset = open_dataset(root, layout)  # type: ignore[arg-type]
        for index in range(len(dataset)):
            with contextlib.suppress(SeganyError):  # the others may be good
                item = dataset.read(index)
                [(one.mask, one.category, one.area) for one in item.instances]

    return read


def _coco(folder: Path) -> Path:
    save(folder / "a.png", picture(SIZE_HW))
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": rle(MASKS[0]), "bbox": [0, 0, 3, 2]},
        {"id": 2, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]], "area": 8},
        {"id": 3, "image_id": 7, "category_id": 4, "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [10, 38]}},
    ]
    record = {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 4, "name": "dog"}],
    }
    return save_json(folder / "coco.json", record)


def _sa1b(folder: Path) -> Path:
    save(folder / "a.png", picture(SIZE_HW))
    return save_json(folder / "a.json", sa1b_record(MASKS, SIZE_HW))


def _labelme(folder: Path) -> Path:
    from segany.data.formats.labelme import to_labelme

    holed = MASKS[1].copy()
    holed[4, 5] = False
    instances = Instances.from_masks(np.stack([MASKS[0], holed, MASKS[0] | MASKS[1]]))
    record = to_labelme(instances, "a.png")
    record["shapes"].append({"label": "a", "shape_type": "circle", "points": [[3, 3], [4, 4]]})
    save(folder / "a.png", picture(SIZE_HW))
    return save_json(folder / "a.json", record)


def _label_map(folder: Path) -> Path:
    save(folder / "images" / "a.png", picture(SIZE_HW))
    labels = MASKS[0] * 1 + MASKS[1] * 2
    return save(folder / "masks" / "a.png", labels.astype(np.uint8))


def _palette_map(folder: Path) -> Path:
    save(folder / "images" / "a.png", picture(SIZE_HW))
    labels = MASKS[0] * 1 + MASKS[1] * 2
    return save(folder / "masks" / "a.png", labels.astype(np.uint8), palette=[9, 9, 9, 0, 0, 0, 255, 0, 0])


def _label_names(folder: Path) -> Path:
    _label_map(folder)
    names = {"1": "cat", "2": {"name": "dog", "id": 18, "supercategory": "animal", "object_id": 4}}
    return save_json(folder / "masks" / "labels.json", names)


def _read_label_names(path: Path) -> None:
    from segany.data import MaskFolder

    [one.category for one in MaskFolder(path.parents[1]).read(0).instances]


def _yolo_labels(folder: Path) -> Path:
    save(folder / "images" / "a.png", picture(SIZE_HW))
    (folder / "data.yaml").write_text("names: {0: cat, 1: dog}\n")
    path = folder / "labels" / "a.txt"
    path.parent.mkdir()
    path.write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.4 0.1 0.4 0.4 0.2 0.9\n")
    return path


def _yolo_names(folder: Path) -> Path:
    _yolo_labels(folder)
    return folder / "data.yaml"


def _read_yolo_names(path: Path) -> None:
    from segany.data import YoloFolder

    [one.category for one in YoloFolder(path.parent).read(0).instances]


def _shards(folder: Path) -> Path:
    members = {
        "a.jpg": encoded(picture(SIZE_HW), "JPEG"),
        "a.json": json.dumps(sa1b_record(MASKS, SIZE_HW)).encode(),
        "b.jpg": encoded(picture(SIZE_HW, 1), "JPEG"),
        "b.png": encoded(MASKS[0].astype(np.uint8), "PNG"),
    }
    return save_tar(folder / "shard.tar", members)


def _masklets(folder: Path) -> Path:
    for frame in range(3):
        save(folder / "videos" / "clip" / f"{frame:05d}.jpg", picture(SIZE_HW, frame))
    record = {
        "video_id": "clip",
        "video_height": 6,
        "video_width": 8,
        "video_frame_count": 3,
        "video_duration": 1.0,
        "masklet": [[rle(mask) for mask in MASKS] for _ in range(3)],
        "masklet_id": [0, 1],
    }
    return save_json(folder / "annotations" / "clip_manual.json", record)


def _read_masklets(path: Path) -> None:
    from segany.data import read_video_dataset

    for video in read_video_dataset(path.parents[1]):
        for frame in video.annotated:
            video.masks(frame)


def _read_image(path: Path) -> None:
    from segany.imaging.image import read_image

    read_image(path)


def _picture_as(format_name: str, mode: str = "RGB") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "picture"
        Image.fromarray(picture((20, 30))).convert(mode).save(path, format=format_name)
        return path

    return make


def _video(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from tests.videos_for_tests import write_video

        return write_video(folder / name, count=6, **options)

    return make


def _read_video(path: Path) -> None:
    from segany.imaging.frames import open_frames

    with open_frames(path) as source:
        for frame in range(min(source.count or 0, 8)):
            source.read(frame)


def _embedding(folder: Path) -> Path:
    from segany import Embedding, Preprocessing

    features = (np.zeros((4, 3, 3), np.float32), np.ones((2, 6, 6), np.float32))
    return Embedding(features, (20, 30), Preprocessing(48), "tiny", "abc", "def").save(folder / "a.safetensors")


def _read_embedding(path: Path) -> None:
    from segany import Embedding

    Embedding.load(path)


def _model(folder: Path) -> Path:
    from tests.models_for_tests import SMALL_TINY_VIT, small_sam

    from segany.models.model_file import save_model

    return save_model(small_sam(SMALL_TINY_VIT), folder / "model.safetensors")


def _checkpoint(folder: Path) -> Path:
    import torch

    path = folder / "model.pt"
    torch.save({"model": {"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}}, path)
    return path


def _load_model(path: Path) -> None:
    import segany

    segany.load(path, device="cpu")


def _manifest(folder: Path) -> Path:
    names = ("encoder", "decoder", "shared_image", "proposals")
    for name in names:
        (folder / f"{name}.onnx").write_bytes(b"")
    record = {
        "format_version": 2,
        "segany_version": "0.1.0",
        "model": "mobile_sam",
        "encoder_id": "a",
        "weights_id": "a",
        "precision": "fp32",
        "opset": 17,
        "preprocessing": {"input_size": 64, "resize": "square", "mean_rgb": [0, 0, 0], "std_rgb": [1, 1, 1]},
        "low_res_size": 16,
        "pads_boxes": True,
        "pred_iou_thresh": 0.8,
        "files": {name: {"path": f"{name}.onnx", "sha256": "0" * 64, "inputs": [], "outputs": []} for name in names},
    }
    return save_json(folder / "manifest.json", record)


def _read_manifest(path: Path) -> None:
    import segany

    segany.load(path.parent)


def _session(folder: Path) -> Path:
    from tests.models_for_tests import loaded, small_sam2

    import segany

    frames = [picture(SESSION_HW, number) for number in range(3)]
    with segany.VideoPredictor(loaded(small_sam2())).open(frames) as session:
        session.prompt(0, 1, segany.Prompt(box_xyxy=[1, 1, 20, 20]), category=segany.Category(3, "cat"))
        list(session.propagate())
        return session.save(folder / "a.session")


def _resume_session(path: Path) -> None:
    from tests.models_for_tests import loaded, small_sam2

    import segany

    frames = [picture(SESSION_HW, number) for number in range(3)]
    with segany.VideoPredictor(loaded(small_sam2())).open(frames, resume=path) as session:
        for frame in range(3):
            [one.mask for one in session.result(frame).instances]


def _frame_prompts(folder: Path) -> Path:
    save(folder / "labels.png", (MASKS[0] * 1 + MASKS[1] * 2).astype(np.uint8))
    return save_json(
        folder / "prompts.json",
        [
            {"frame": 0, "object": 1, "points_xy": [[1, 2]], "labels": [1], "category": "cat"},
            {"frame": 1, "object": 2, "box_xyxy": [1, 1, 5, 5]},
            {"frame": 2, "mask": "labels.png"},
            {"frame": 1, "mask": "labels.png", "label": 2, "object": 7},
        ],
    )


def _read_frame_prompts(path: Path) -> None:
    from segany.data.frame_prompts import read_frame_prompts
    from segany.imaging.frames import open_frames

    with open_frames([picture(SIZE_HW)] * 3) as source:
        read_frame_prompts(path).by_label(1000).read(source, 1000)


def _prompts(folder: Path) -> Path:
    save(folder / "mask.png", MASKS[0].astype(np.uint8) * 255)
    return save_json(
        folder / "prompts.json",
        [
            {"points_xy": [[1, 2], [3, 4]], "labels": [1, 0]},
            {"box_xyxy": [1, 1, 5, 5]},
            {"mask": "mask.png", "points_xy": [[1, 1]]},
        ],
    )


def _read_prompts(path: Path) -> None:
    from segany.data.mask_prompts import MaskFiles
    from segany.data.prompts_file import read_prompts_file

    files = MaskFiles(1000)
    for prompt in read_prompts_file(path).objects_in(Path("a.jpg")):
        for part in prompt.by_label(files):
            part.to_prompt(part.read_mask(SIZE_HW, files)).check_fits(SIZE_HW)


def _mask_array(folder: Path) -> Path:
    path = folder / "masks.npz"
    np.savez_compressed(path, low_res_logits=np.zeros((1, 3, 16, 16), np.float32), scores=np.zeros((1, 3), np.float32))
    return path


def _read_mask_array(path: Path) -> None:
    from segany.data.prompts_file import MaskFiles, ObjectPrompt

    prompt = ObjectPrompt(mask=path)
    prompt.to_prompt(prompt.read_mask(SIZE_HW, MaskFiles(1000)))


def _instance_archive(folder: Path) -> Path:
    from segany.data.formats.npz import to_npz

    path = folder / "a.npz"
    categories = [Category(3, "cat")]
    instances = Instances.from_masks(np.stack(MASKS), category_ids=[3, 3], categories=categories, object_ids=[1, 2])
    path.write_bytes(to_npz(instances.with_columns(predicted_iou=[0.5, 0.25])))
    return path


def _read_instance_archive(path: Path) -> None:
    from segany.data.formats.npz import from_npz

    from_npz(path).masks()


def _geojson(folder: Path) -> Path:
    from segany.data.formats.polygons import to_geojson

    return save_json(folder / "a.geojson", to_geojson(Instances.from_masks(np.stack(MASKS), object_ids=[1, 2])))


def _read_geojson(data: Any) -> Instances:
    from segany.data.formats.polygons import from_geojson

    return from_geojson(data)


def _dictionary(from_dictionary: Callable[[Any], Instances]) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError):  # that is the caller's to read
            return
        from_dictionary(data).masks()

    return read


READERS: dict[str, Reader] = {
    "embedding": (_embedding, _read_embedding),
    "model": (_model, _load_model),
    "checkpoint": (_checkpoint, _load_model),
    "manifest": (_manifest, _read_manifest),
    "coco": (_coco, _read_dataset("coco")),
    "sa1b": (_sa1b, _read_dataset("sa1b")),
    "labelme": (_labelme, _read_dataset("labelme")),
    "label_map": (_label_map, _read_dataset("masks")),
    "palette_map": (_palette_map, _read_dataset("masks")),
    "label_names": (_label_names, _read_label_names),
    "yolo": (_yolo_labels, _read_dataset("yolo")),
    "yolo_names": (_yolo_names, _read_yolo_names),
    "shards": (_shards, _read_dataset("shards")),
    "masklets": (_masklets, _read_masklets),
    "coco_dictionary": (_coco, _dictionary(from_coco)),
    "sa1b_dictionary": (_sa1b, _dictionary(from_sa1b)),
    "geojson": (_geojson, _dictionary(_read_geojson)),
    "instance_archive": (_instance_archive, _read_instance_archive),
    "session": (_session, _resume_session),
    "prompts": (_prompts, _read_prompts),
    "frame_prompts": (_frame_prompts, _read_frame_prompts),
    "mask_array": (_mask_array, _read_mask_array),
    "png": (_picture_as("PNG"), _read_image),
    "jpeg": (_picture_as("JPEG"), _read_image),
    "tiff": (_picture_as("TIFF"), _read_image),
    "gif": (_picture_as("GIF"), _read_image),
    "webp": (_picture_as("WEBP"), _read_image),
    "bmp": (_picture_as("BMP"), _read_image),
    "mp4": (_video("v.mp4"), _read_video),
    "avi": (_video("v.avi", codec="mjpeg", b_frames=0), _read_video),
    "mkv": (_video("v.mkv"), _read_video),
    **STATE_READERS,
}


def failures(name: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Read mutations of one reader's file; yield those that end in anything but a result or a `SeganyError`."""
    make, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder))
        good = path.read_bytes()
        try:  # it must be good, and what it imports comes before memory is bounded
            read(path)
        except (CheckpointError, ExportError):
            if name not in NEVER_WHOLE:
                raise
        _bound_memory()
        for number in range(count):
            path.write_bytes(mutate(good, random.Random(f"{seed}/{number}")))
            start = time.process_time()  # the machine may be busy with other tests
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", RuntimeWarning)
                    read(path)
                problem = None
            except SeganyError as error:
                problem = f"a message of {len(str(error))} characters" if len(str(error)) > 20_000 else None
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                problem = f"{type(error).__name__}: {str(error)[:200]} at {where.filename}:{where.lineno}"
            seconds = time.process_time() - start
            if seconds > SECONDS:
                problem = f"{seconds:.0f} s; {problem}"
            if problem:
                yield {"reader": name, "seed": seed, "number": number, "problem": problem}


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # what libraries print
        found = list(failures(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps(found))
