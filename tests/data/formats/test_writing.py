"""Every format holds what it says, as other programs read it, and is written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.instances_for_tests import SIZE_HW, make_instances, rectangle

from segany import Category, Instances, MaskPrediction, OutputError, Prompt, draw_instances, to_coco, to_sa1b
from segany.core.polygons import Polygon, polygons_to_mask
from segany.data.formats.table import (
    AUTOMATIC_FORMATS,
    DEFAULT_AUTOMATIC_FORMATS,
    DEFAULT_PROMPT_FORMATS,
    FORMATS,
    PROMPT_FORMATS,
)
from segany.data.formats.writing import FormatOptions, file_names, write_formats
from segany.data.item import AnnotatedImage

IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
AUTOMATIC = make_instances(np.stack([rectangle(2, 2, 20, 25), rectangle(5, 5, 9, 9), rectangle(30, 3, 31, 4)]))
EMPTY = AUTOMATIC[:0]


def prediction() -> MaskPrediction:
    """Two objects: a ring in three candidates of which the second is best, and an empty one."""
    masks = np.zeros((2, 3, *SIZE_HW), dtype=np.bool_)
    masks[0, :, 5:25, 10:35] = True
    masks[0, 1, 10:20, 20:30] = False
    masks[0, 2, :, 20:] = False
    return MaskPrediction(
        masks=masks,
        scores=np.array([[0.5, 0.875, 0.25], [0.75, -np.inf, -np.inf]], dtype=np.float32),
        low_res_logits=np.full((2, 3, 8, 8), -1, dtype=np.float32),
        candidates=np.array([3, 1]),
        prompts=(Prompt(points_xy=[[15, 15]]), Prompt(box_xyxy=[1, 2, 3, 4])),
    )


def annotated(instances: Instances = AUTOMATIC) -> AnnotatedImage:
    return AnnotatedImage("a", IMAGE, instances, "a.jpg")


def prompted(*, all_candidates: bool = False) -> AnnotatedImage:
    return annotated(prediction().to_instances(all_candidates=all_candidates))


def encoded(name: str, image: AnnotatedImage, options: FormatOptions | None = None) -> dict[str, bytes]:
    return dict(FORMATS[name](image, options or FormatOptions()))


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def test_commands_offer_what_is_there() -> None:
    assert set(DEFAULT_PROMPT_FORMATS) <= set(PROMPT_FORMATS)
    assert set(DEFAULT_AUTOMATIC_FORMATS) <= set(AUTOMATIC_FORMATS)
    offered = {*PROMPT_FORMATS.values(), *AUTOMATIC_FORMATS.values()}
    assert offered == set(FORMATS.values())


def test_prediction_to_instances() -> None:
    best = prediction().to_instances()
    assert (best.object_ids.tolist(), best.scores.tolist()) == ([1, 2], [0.875, 0.75])
    assert set(best.sources.tolist()) == {"prompt"}
    np.testing.assert_array_equal(best.masks(), prediction().best())
    every = prediction().to_instances(all_candidates=True)
    assert (every.object_ids.tolist(), every.candidate.tolist()) == ([1, 1, 1, 2], [1, 2, 3, 1])
    assert every.scores.tolist() == [0.5, 0.875, 0.25, 0.75]
    np.testing.assert_array_equal(every[2].mask, prediction().masks[0, 2])


def test_overlay_of_a_prediction_shows_its_prompts() -> None:
    options = FormatOptions(prediction())
    files = encoded("overlay", prompted(), options)
    assert list(files) == ["_overlay.png"]
    assert (opened(files["_overlay.png"]) != draw_instances(IMAGE, prompted().instances)).any()
    assert list(encoded("overlay", prompted(all_candidates=True), options)) == [
        f"_overlay_{name}.png" for name in ("1_candidate_1", "1_candidate_2", "1_candidate_3", "2_candidate_1")
    ]


def test_overlay_of_automatic_masks() -> None:
    picture = opened(encoded("overlay", annotated())["_overlay.png"])
    np.testing.assert_array_equal(picture, draw_instances(IMAGE, AUTOMATIC))
    jpg = opened(encoded("overlay-jpg", annotated())["_overlay.jpg"])
    assert np.abs(jpg.astype(int) - picture).mean() < 15


def test_png_masks() -> None:
    files = encoded("png", prompted())
    assert list(files) == ["_mask_1.png", "_mask_2.png"]
    np.testing.assert_array_equal(opened(files["_mask_1.png"]), prediction().masks[0, 1] * np.uint8(255))
    assert not opened(files["_mask_2.png"]).any()
    assert list(encoded("png", prompted(all_candidates=True)))[1] == "_mask_1_candidate_2.png"


def test_files_of_instances_are_named_by_object_or_number() -> None:
    ids = Instances.from_masks(AUTOMATIC.masks(), object_ids=[7, 4, 9])
    assert list(encoded("png", annotated(ids))) == ["_mask_7.png", "_mask_4.png", "_mask_9.png"]
    twice = Instances.from_masks(AUTOMATIC.masks(), object_ids=[7, 7, 9])
    for instances in (AUTOMATIC, twice):
        assert list(encoded("png", annotated(instances))) == ["_mask_1.png", "_mask_2.png", "_mask_3.png"]


def test_cutout_is_the_box_of_the_mask_with_nothing_hidden() -> None:
    files = encoded("cutout", prompted())
    assert list(files) == ["_cutout_1.png"]  # an empty mask has nothing to cut out
    picture = opened(files["_cutout_1.png"])
    mask = prediction().masks[0, 1, 5:25, 10:35]
    np.testing.assert_array_equal(picture[..., 3], mask * np.uint8(255))
    np.testing.assert_array_equal(picture[..., :3], IMAGE[5:25, 10:35] * mask[..., None])


def test_coco_and_sa1b_say_which_image() -> None:
    data = json.loads(encoded("coco", annotated())["_coco.json"])
    assert data == json.loads(json.dumps(to_coco(AUTOMATIC, "a.jpg")))
    data = json.loads(encoded("sa1b", annotated())["_sa1b.json"])
    assert data == json.loads(json.dumps(to_sa1b(AUTOMATIC, "a.jpg")))
    of_dataset = AnnotatedImage("a", IMAGE, AUTOMATIC, "a.jpg", image_id=139)
    assert json.loads(encoded("coco", of_dataset)["_coco.json"])["images"][0]["id"] == 139
    assert json.loads(encoded("sa1b", of_dataset)["_sa1b.json"])["image"]["image_id"] == 139


def test_coco_with_all_candidates() -> None:
    annotations = json.loads(encoded("coco", prompted(all_candidates=True))["_coco.json"])["annotations"]
    assert [(a["object"], a["candidate"], a["score"]) for a in annotations] == [
        (1, 1, 0.5), (1, 2, 0.875), (1, 3, 0.25), (2, 1, 0.75),
    ]  # fmt: skip
    assert [a["id"] for a in annotations] == [1, 2, 3, 4]
    (ring, empty) = json.loads(encoded("coco", prompted())["_coco.json"])["annotations"]
    assert (ring["bbox"], ring["area"], "candidate" in ring) == ([10, 5, 25, 20], 400, False)
    assert (empty["area"], empty["bbox"], empty["object"]) == (0, [0, 0, 0, 0], 2)


def test_label_map() -> None:
    files = encoded("label-map", annotated())
    assert list(files) == ["_labels.png"]
    labels = opened(files["_labels.png"])
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, AUTOMATIC.to_label_map())
    options = FormatOptions(label_order="score", label_fill=True)
    labels = opened(encoded("label-map", annotated(), options)["_labels.png"])
    np.testing.assert_array_equal(labels, AUTOMATIC.to_label_map("score", fill=True))


def test_label_map_with_names() -> None:
    instances = AUTOMATIC.with_categories([3, -1, 8], [Category(3, "cat", "animal"), Category(8, "dog")])
    files = encoded("label-map", annotated(instances))
    assert json.loads(files["_labels.json"]) == {
        "1": {"name": "cat", "id": 3, "supercategory": "animal"},
        "3": {"name": "dog", "id": 8},
    }
    assert json.loads(encoded("label-map", prompted())["_labels.json"])["2"] == {"object_id": 2}


def test_label_map_of_more_labels_than_a_png_holds() -> None:
    many = Instances([Instances.from_masks(rectangle(39, 29, 40, 30)).rle_counts[0]] * 65_536, SIZE_HW)
    ((name, data),) = encoded("label-map", annotated(many)).items()
    assert name == "_labels.npy"
    labels = np.load(io.BytesIO(data))
    assert labels.dtype == np.int32
    assert labels[29, 39] == 1


def test_folder_of_masks() -> None:
    files = encoded("masks-png", annotated())
    assert list(files) == [f"_masks/{name}" for name in ("0.png", "1.png", "2.png", "metadata.csv")]
    for index, mask in enumerate(AUTOMATIC.masks()):
        np.testing.assert_array_equal(opened(files[f"_masks/{index}.png"]), mask * np.uint8(255))
    rows = list(csv.DictReader(io.StringIO(files["_masks/metadata.csv"].decode())))
    assert len(rows) == 3
    numbers = {name: float(value) for name, value in rows[1].items()}
    assert numbers == pytest.approx({
        "id": 1, "area": 16, "bbox_x0": 5, "bbox_y0": 5, "bbox_w": 3, "bbox_h": 3, "point_input_x": 12.5,
        "point_input_y": 3.25, "predicted_iou": 0.99, "stability_score": 0.97, "crop_box_x0": 0, "crop_box_y0": 0,
        "crop_box_w": 40, "crop_box_h": 30,
    })  # fmt: skip
    by_hand = encoded("masks-png", annotated(Instances.from_masks(rectangle(2, 3, 5, 7))))
    (row,) = csv.DictReader(io.StringIO(by_hand["_masks/metadata.csv"].decode()))
    assert (row["area"], row["bbox_w"], row["predicted_iou"], row["crop_box_h"]) == ("12", "2.0", "", "")


def test_npz() -> None:
    with np.load(io.BytesIO(encoded("npz", annotated())[".npz"])) as arrays:
        np.testing.assert_array_equal(arrays["masks"], AUTOMATIC.masks())
        assert arrays["masks"].dtype == np.bool_
        assert arrays["area"].tolist() == AUTOMATIC.areas.tolist()
        assert arrays["bbox_xywh"][1].tolist() == [5, 5, 3, 3]
        assert arrays["boxes_xyxy"][1].tolist() == [5, 5, 9, 9]
        assert arrays["point_xy"].shape == (3, 2)
        np.testing.assert_allclose(arrays["predicted_iou"], [1, 0.99, 0.98])
        assert arrays["crop_box_xywh"][0].tolist() == [0, 0, 40, 30]


def test_npz_of_prompts_holds_the_whole_prediction() -> None:
    ((name, data),) = PROMPT_FORMATS["npz"](prompted(), FormatOptions(prediction()))
    assert name == "_prediction.npz"
    with np.load(io.BytesIO(data)) as arrays:
        for field in ("masks", "scores", "low_res_logits", "candidates"):
            expected = getattr(prediction(), field)
            np.testing.assert_array_equal(arrays[field], expected)
            assert arrays[field].dtype == expected.dtype
    with pytest.raises(OutputError, match="do not come from prompts"):
        encoded("prediction", annotated())


def test_polygons_keep_holes_and_are_exact() -> None:
    collection = json.loads(encoded("polygons", prompted())["_polygons.geojson"])
    assert collection["image"] == {"file_name": "a.jpg", "width": 40, "height": 30}
    ring, empty = collection["features"]
    assert ring["properties"] == {"object": 1, "score": 0.875, "area": 400, "bbox_xywh": [10, 5, 25, 20]}
    ((exterior, hole),) = ring["geometry"]["coordinates"]
    assert exterior[0] == exterior[-1]
    polygon = Polygon(np.array(exterior[:-1], float), (np.array(hole[:-1], float),))
    np.testing.assert_array_equal(polygons_to_mask([polygon], SIZE_HW), prediction().masks[0, 1])
    assert empty["geometry"] == {"type": "MultiPolygon", "coordinates": []}


@pytest.mark.parametrize("name", AUTOMATIC_FORMATS)
def test_no_masks_in_every_format(name: str) -> None:
    files = encoded(name, annotated(EMPTY))
    assert files
    assert all(files.values())
    if name == "npz":
        with np.load(io.BytesIO(files[".npz"])) as arrays:
            assert arrays["masks"].shape == (0, *SIZE_HW)
            assert arrays["bbox_xywh"].shape == (0, 4)


def test_write_formats(tmp_path: Path) -> None:
    options = FormatOptions(prediction())
    written = write_formats(prompted(), PROMPT_FORMATS, tmp_path / "new" / "out", "ring", options)
    assert set(written) == set(PROMPT_FORMATS)
    paths = [path for group in written.values() for path in group]
    assert sorted(paths) == sorted((tmp_path / "new" / "out").iterdir())
    assert all(path.name.startswith("ring_") for path in paths)


def test_all_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "ring_coco.json").mkdir()  # where a file cannot be
    with pytest.raises(OutputError, match="folder of that name"):
        write_formats(annotated(), {name: FORMATS[name] for name in ("overlay", "png", "coco")}, tmp_path, "ring")
    assert [path.name for path in tmp_path.iterdir()] == ["ring_coco.json"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupted(temporary: Path, path: Path) -> Path:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_formats(annotated(), {name: FORMATS[name] for name in ("overlay", "png", "coco")}, tmp_path, "ring")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_encoded_before_anything_is_written(tmp_path: Path) -> None:
    def fail(image: AnnotatedImage, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
        raise MemoryError

    earlier = tmp_path / "ring_overlay.png"
    earlier.write_bytes(b"earlier")
    with pytest.raises(MemoryError):
        write_formats(annotated(), {"overlay": FORMATS["overlay"], "coco": fail}, tmp_path, "ring")
    assert earlier.read_bytes() == b"earlier"


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "ring_coco.json"
    precious.write_bytes(b"prompts")
    encoders = {name: FORMATS[name] for name in ("overlay", "coco")}
    with pytest.raises(OutputError, match=r"ring_coco\.json is one of the inputs"):
        write_formats(annotated(), encoders, tmp_path, "ring", keep={precious.resolve()})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"prompts"]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/x.jpg", "b/y.png"], ["x", "y"]),
        (["a/x.jpg", "b/x.jpg", "x.png"], ["x", "x_2", "x_3"]),
        (["x.jpg", "b/x.jpg", "x_2.jpg"], ["x", "x_3", "x_2"]),
        (["x.jpg", "X.jpg"], ["x", "X_2"]),
        (["x.jpg", "x.jpg"], ["x", "x_2"]),
        (["photo.tar.jpg"], ["photo.tar"]),
    ],
)
def test_no_two_images_share_a_name(sources: list[str], names: list[str]) -> None:
    assert file_names([Path(source) for source in sources]) == names
