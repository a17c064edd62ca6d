"""Every format holds what it says, as other programs read it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segany.core.errors import OutputError
from segany.core.files import write_file
from segany.core.polygons import Polygon, polygons_to_mask
from segany.core.prediction import MaskPrediction
from segany.core.prompt import Prompt
from segany.data.formats import prediction as formats_module
from segany.data.formats.prediction import DEFAULT_FORMATS, FORMATS, SegmentedImage, write_result
from segany.data.formats.writing import file_names

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def result(*, all_candidates: bool = False) -> SegmentedImage:
    """Two objects: a ring in three candidates of which the second is best, and an empty one."""
    masks = np.zeros((2, 3, 40, 60), dtype=np.bool_)
    masks[0, :, 5:30, 10:50] = True
    masks[0, 1, 10:20, 20:30] = False
    masks[0, 2, :, 40:] = False
    prediction = MaskPrediction(
        masks=masks,
        scores=np.array([[0.5, 0.875, 0.25], [0.75, -np.inf, -np.inf]], dtype=np.float32),
        low_res_logits=np.full((2, 3, 8, 8), -1, dtype=np.float32),
        candidates=np.array([3, 1]),
        prompts=(Prompt(points_xy=[[15, 15]]), Prompt(box_xyxy=[1, 2, 3, 4])),
    )
    return SegmentedImage(Path("photos/ring.jpg"), IMAGE, prediction, all_candidates)


def encoded(name: str, **options: bool) -> dict[str, bytes]:
    return dict(FORMATS[name](result(**options)))


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def test_overlay() -> None:
    files = encoded("overlay")
    assert list(files) == ["_overlay.png"]
    assert opened(files["_overlay.png"]).shape == IMAGE.shape
    assert list(encoded("overlay", all_candidates=True)) == [
        f"_overlay_{name}.png" for name in ("1_candidate_1", "1_candidate_2", "1_candidate_3", "2_candidate_1")
    ]


def test_overlay_jpg() -> None:
    files = encoded("overlay-jpg")
    picture = opened(files["_overlay.jpg"])
    assert picture.shape == IMAGE.shape
    assert np.abs(picture.astype(int) - opened(encoded("overlay")["_overlay.png"])).mean() < 12


def test_png_masks() -> None:
    files = encoded("png")
    assert list(files) == ["_mask_1.png", "_mask_2.png"]
    np.testing.assert_array_equal(opened(files["_mask_1.png"]), result().prediction.masks[0, 1] * np.uint8(255))
    assert not opened(files["_mask_2.png"]).any()
    assert len(encoded("png", all_candidates=True)) == 4


def test_cutout_is_the_box_of_the_mask_with_nothing_hidden() -> None:
    files = encoded("cutout")
    assert list(files) == ["_cutout_1.png"]  # an empty mask has nothing to cut out
    picture = opened(files["_cutout_1.png"])
    mask = result().prediction.masks[0, 1, 5:30, 10:50]
    np.testing.assert_array_equal(picture[..., 3], mask * np.uint8(255))
    np.testing.assert_array_equal(picture[..., :3], IMAGE[5:30, 10:50] * mask[..., None])


def test_coco_as_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data,) = encoded("coco").values()
    (tmp_path / "coco.json").write_bytes(data)
    coco = COCO(tmp_path / "coco.json")
    assert coco.loadImgs(1)[0] == {"id": 1, "file_name": "ring.jpg", "width": 60, "height": 40}
    ring, empty = coco.loadAnns(coco.getAnnIds(imgIds=1))
    mask = result().prediction.masks[0, 1]
    np.testing.assert_array_equal(coco.annToMask(ring), mask)
    assert ring["bbox"] == [10, 5, 40, 25]
    assert ring["area"] == mask.sum()
    assert ring["score"] == 0.875
    assert ring["object"] == 1
    assert "candidate" not in ring
    assert coco.loadCats(ring["category_id"])[0]["name"] == "object"
    assert (empty["area"], empty["bbox"], empty["object"]) == (0, [0, 0, 0, 0], 2)


def test_coco_with_all_candidates() -> None:
    (data,) = encoded("coco", all_candidates=True).values()
    annotations = json.loads(data)["annotations"]
    assert [(a["object"], a["candidate"], a["score"]) for a in annotations] == [
        (1, 1, 0.5), (1, 2, 0.875), (1, 3, 0.25), (2, 1, 0.75),
    ]  # fmt: skip
    assert [a["id"] for a in annotations] == [1, 2, 3, 4]


def test_npz_holds_the_whole_prediction() -> None:
    (data,) = encoded("npz").values()
    with np.load(io.BytesIO(data)) as arrays:
        for name in ("masks", "scores", "low_res_logits", "candidates"):
            expected = getattr(result().prediction, name)
            np.testing.assert_array_equal(arrays[name], expected)
            assert arrays[name].dtype == expected.dtype


def test_polygons_keep_holes_and_are_exact() -> None:
    (data,) = encoded("polygons").values()
    collection = json.loads(data)
    assert collection["image"] == {"file_name": "ring.jpg", "width": 60, "height": 40}
    ring, empty = collection["features"]
    assert ring["properties"] == {"object": 1, "score": 0.875, "area": 900, "bbox_xywh": [10, 5, 40, 25]}
    ((exterior, hole),) = ring["geometry"]["coordinates"]
    assert exterior[0] == exterior[-1]
    polygon = Polygon(np.array(exterior[:-1], float), (np.array(hole[:-1], float),))
    np.testing.assert_array_equal(polygons_to_mask([polygon], (40, 60)), result().prediction.masks[0, 1])
    assert empty["geometry"] == {"type": "MultiPolygon", "coordinates": []}


def test_write_result(tmp_path: Path) -> None:
    written = write_result(result(), list(FORMATS), tmp_path / "new" / "out", "ring")
    assert set(written) == set(FORMATS)
    paths = [path for group in written.values() for path in group]
    assert sorted(paths) == sorted((tmp_path / "new" / "out").iterdir())
    assert all(path.name.startswith("ring_") for path in paths)
    assert set(DEFAULT_FORMATS) <= set(FORMATS)


@pytest.mark.parametrize("failure", [OutputError, KeyboardInterrupt])
def test_write_result_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def fail_at_json(path: Path, data: bytes) -> Path:
        if path.suffix == ".json":
            raise failure("no space")
        return write_file(path, data)

    monkeypatch.setattr(formats_module, "write_file", fail_at_json)
    with pytest.raises(failure):
        write_result(result(), ["overlay", "png", "coco"], tmp_path, "ring")
    assert list(tmp_path.iterdir()) == []


def test_write_result_encodes_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: SegmentedImage) -> Iterator[tuple[str, bytes]]:
        raise MemoryError

    earlier = tmp_path / "ring_overlay.png"
    earlier.write_bytes(b"earlier")
    monkeypatch.setitem(FORMATS, "coco", fail)
    with pytest.raises(MemoryError):
        write_result(result(), ["overlay", "coco"], tmp_path, "ring")
    monkeypatch.undo()
    with pytest.raises(OutputError):
        write_result(result(), ["overlay", "coco"], tmp_path, "ring", keep={(tmp_path / "ring_coco.json").resolve()})
    assert earlier.read_bytes() == b"earlier"


def test_images_are_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "ring_overlay.png"
    precious.write_bytes(b"photo")
    with pytest.raises(OutputError, match=r"ring_overlay\.png is one of the inputs"):
        write_result(result(), ["overlay"], tmp_path, "ring", keep={precious.resolve()})
    assert precious.read_bytes() == b"photo"


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
