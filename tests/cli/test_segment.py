"""`segany segment` with a predictor that only pretends: arguments, files, messages and exit codes."""

import errno
import json
import os
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from segany.cli.app import app
from segany.core.embedding import Embedding
from segany.core.errors import CheckpointError
from segany.core.prediction import MaskPrediction
from segany.core.preprocessing import Preprocessing
from segany.core.prompt import Prompt
from segany.hub.model_ref import ModelRef
from segany.jobs.segmentation import SegmentationTask

WIDTH, HEIGHT = 60, 40


class FakePredictor:
    """Answers each prompt with a square, and remembers what it was asked."""

    model = SimpleNamespace(name="fake", preprocessing=Preprocessing(), low_res_size=256)

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Prompt, ...], str]] = []

    def embed(self, image: np.ndarray) -> Embedding:
        return Embedding((), image.shape[:2], Preprocessing(), "fake", "e", "i")

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt], *, masks: str) -> MaskPrediction:
        self.asked.append((tuple(prompts), masks))
        candidates = np.array([3 if prompt.is_ambiguous else 1 for prompt in prompts])
        shape = (len(prompts), int(candidates.max()))
        answer = np.zeros((*shape, *embedding.size_hw), dtype=np.bool_)
        answer[..., 10:20, 10:20] = True
        scores = np.where(np.arange(shape[1]) < candidates[:, None], np.linspace(0.5, 0.75, shape[1]), -np.inf)
        logits = np.zeros((*shape, 256, 256), dtype=np.float32)
        return MaskPrediction(answer, scores.astype(np.float32), logits, candidates, tuple(prompts))


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    fake = FakePredictor()
    monkeypatch.setattr(SegmentationTask, "open", lambda *args: fake)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photo.png in it."""
    monkeypatch.chdir(tmp_path)
    save_image(Path("photo.png"))
    return tmp_path


@pytest.fixture
def run(folder: Path, predictor: FakePredictor) -> Callable[..., Result]:
    """Runs `segany segment` with these arguments."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["segment", *arguments], env={"COLUMNS": "200"})

    return invoke


def written() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


def save_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)


def check_refused(result: Result, *parts: str) -> None:
    """Exit code 2, one error on stderr that holds the parts, and nothing written."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert not Path("out").exists()


def test_points_box_and_default_formats(run: Callable[..., Result], predictor: FakePredictor) -> None:
    result = run("photo.png", "--point", "10,12", "--point", "5.5,6,0", "--box", "1,2,30,31", "--masks", "single")
    assert result.exit_code == 0, result.output
    ((prompts, masks),) = predictor.asked
    assert masks == "single"
    assert prompts[0].points_xy.tolist() == [[10, 12], [5.5, 6]]
    assert prompts[0].labels.tolist() == [1, 0]
    assert prompts[0].box_xyxy.tolist() == [1, 2, 30, 31]
    assert written() == ["photo_coco.json", "photo_mask_1.png", "photo_overlay.png"]
    assert "photo.png" in result.stdout
    assert "score 0.50" in result.stdout
    assert "100 pixels" in result.stdout
    assert "out/photo_overlay.png" in result.stdout
    assert result.stderr == ""


def test_several_boxes_are_several_objects(run: Callable[..., Result], predictor: FakePredictor) -> None:
    result = run("photo.png", "--box", "1,2,30,31", "--box", "3,4,5,6", "--json")
    assert result.exit_code == 0
    assert [prompt.box_xyxy.tolist() for prompt in predictor.asked[0][0]] == [[1, 2, 30, 31], [3, 4, 5, 6]]
    assert [item["object"] for item in json.loads(result.stdout)["objects"]] == [1, 2]


def test_json_is_one_line_an_image_and_nothing_else(run: Callable[..., Result], folder: Path) -> None:
    save_image(folder / "other" / "photo.png")
    result = run("photo.png", "other/photo.png", "--point", "10,12", "--format", "png,npz", "--out", "a/b", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["image"] == "photo.png"
    assert first["size_hw"] == [HEIGHT, WIDTH]
    assert first["model"] == "fake"
    assert len(first["content_id"]) == 64
    assert first["objects"] == [{"object": 1, "score": 0.75, "area": 100, "bbox_xywh": [10, 10, 10, 10]}]
    assert first["files"] == {"png": ["a/b/photo_mask_1.png"], "npz": ["a/b/photo_prediction.npz"]}
    assert second["files"]["png"] == ["a/b/photo_2_mask_1.png"]  # of the same name, and yet not overwritten
    assert all(
        Path(path).is_file() for report in (first, second) for paths in report["files"].values() for path in paths
    )


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("overlay", ["photo_overlay.png"]),
        ("overlay-jpg", ["photo_overlay.jpg"]),
        ("png", ["photo_mask_1.png"]),
        ("cutout", ["photo_cutout_1.png"]),
        ("coco", ["photo_coco.json"]),
        ("npz", ["photo_prediction.npz"]),
        ("polygons", ["photo_polygons.geojson"]),
        ("coco, png,coco", ["photo_coco.json", "photo_mask_1.png"]),
    ],
)
def test_every_format(run: Callable[..., Result], name: str, files: list[str]) -> None:
    assert run("photo.png", "--point", "10,12", "--format", name).exit_code == 0
    assert written() == files


def test_all_candidates(run: Callable[..., Result]) -> None:
    result = run("photo.png", "--point", "10,12", "--format", "png", "--all-candidates", "--json")
    assert [item["candidate"] for item in json.loads(result.stdout)["objects"]] == [1, 2, 3]
    assert len(written()) == 3


def test_mask_file_is_a_mask_prompt(run: Callable[..., Result], predictor: FakePredictor) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, :30] = 1  # any value but zero
    Image.fromarray(mask).save("mask.png")
    assert run("photo.png", "--mask", "mask.png", "--point", "10,12").exit_code == 0
    np.testing.assert_array_equal(predictor.asked[0][0][0].mask, mask == 1)


def test_mask_logits_from_arrays(run: Callable[..., Result], predictor: FakePredictor) -> None:
    logits = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    np.save("a.npy", logits)
    np.save("b.npy", logits[None, None])
    np.savez("c.npz", logits)
    stack = np.stack([logits * 0, logits, logits * 0])[None]
    np.savez("d.npz", low_res_logits=stack, scores=np.array([[0.1, 0.9, 0.2]]), masks=np.zeros(3))
    for name in ("a.npy", "b.npy", "c.npz", "d.npz"):
        assert run("photo.png", "--mask", name).exit_code == 0
        np.testing.assert_array_equal(predictor.asked[-1][0][0].mask_logits, logits)


def test_written_prediction_is_a_mask_again(run: Callable[..., Result]) -> None:
    assert run("photo.png", "--point", "10,12", "--format", "npz").exit_code == 0
    assert run("photo.png", "--mask", "out/photo_prediction.npz").exit_code == 0


def test_prompts_file(run: Callable[..., Result], predictor: FakePredictor, folder: Path) -> None:
    save_image(folder / "deep" / "mask.png")
    (folder / "deep" / "prompts.json").write_text(
        json.dumps(
            [{"points_xy": [[1, 2], [3, 4]], "labels": [1, 0]}, {"box_xyxy": [1, 2, 3, 4]}, {"mask": "mask.png"}]
        )
    )
    assert run("photo.png", "--prompts", "deep/prompts.json").exit_code == 0
    points, box, mask = predictor.asked[0][0]
    assert points.labels.tolist() == [1, 0]
    assert box.box_xyxy.tolist() == [1, 2, 3, 4]
    assert mask.mask.all()


def test_prompts_file_by_image(run: Callable[..., Result], predictor: FakePredictor, folder: Path) -> None:
    save_image(folder / "other" / "photo.png")
    save_image(folder / "other" / "third.png")
    objects = {
        "photo.png": [{"box_xyxy": [1, 1, 3, 3]}],
        "other/photo.png": [{"box_xyxy": [2, 2, 3, 3]}, {"box_xyxy": [2, 2, 4, 4]}],
        "third.png": [{"points_xy": [[5, 5]]}],
        "fourth.png": [{"points_xy": [[5, 5]]}],
    }
    (folder / "prompts.json").write_text(json.dumps(objects))
    assert run("photo.png", "other/photo.png", "other/third.png", "--prompts", "prompts.json").exit_code == 0
    assert [len(prompts) for prompts, _ in predictor.asked] == [1, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["nothing to segment", "--point x,y"]),
        (["--point", "100,5"], ["photo.png: Point (100, 5) lies outside the image, which is 60 wide and 40 high"]),
        (["--point", "-1,5"], ["Point (-1, 5) lies outside"]),
        (["--point", "5,5,2"], ["--point 5,5,2: the label must be 1", "or 0"]),
        (["--point", "5,5,0.5"], ["the label must be 1"]),
        (["--point", "5"], ["--point 5: it must be x,y or x,y,label"]),
        (["--point", "a,b"], ["--point a,b: it must be"]),
        (["--point", "1,2,1,1"], ["it must be x,y"]),
        (["--point", "nan,5"], ["finite"]),
        (["--box", "1,2,3"], ["--box 1,2,3: it must be x0,y0,x1,y1"]),
        (["--box", "30,2,10,20"], ["(30, 2, 10, 20) has no area", "x1 > x0"]),
        (["--box", "0,0,61,20"], ["Box corner (61, 20) lies outside"]),
        (["--box", "1,1,3,3", "--box", "2,2,4,4", "--point", "2,2"], ["which of the 2 boxes the points", "--prompts"]),
        (["--box", "1,1,3,3", "--box", "2,2,4,4", "--mask", "m.png"], ["which of the 2 boxes the mask"]),
        (["--point", "2,2", "--prompts", "p.json"], ["--prompts cannot be combined"]),
        (["--point", "2,2", "--format", "png,gif"], ["There is no format 'gif'", "overlay, overlay-jpg, png"]),
        (["--point", "2,2", "--format", ","], ["--format is empty"]),
        (["--point", "2,2", "--max-pixels", "2399"], ["photo.png has 2,400 pixels (60 x 40)", "limit of 2,399"]),
        (["--mask", "missing.png"], ["There is no file missing.png"]),
        (["--mask", "missing.npy"], ["There is no mask file missing.npy"]),
        (["--prompts", "missing.json"], ["There is no prompts file missing.json"]),
    ],
)
def test_bad_options(run: Callable[..., Result], arguments: list[str], parts: list[str]) -> None:
    check_refused(run("photo.png", *arguments), *parts)


@pytest.mark.parametrize(
    "arguments", [["--masks", "many"], ["--max-pixels", "0"], ["--max-pixels", "x"], ["--color", "red"]]
)
def test_usage_errors(run: Callable[..., Result], arguments: list[str]) -> None:
    result = run("photo.png", "--point", "2,2", *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert not Path("out").exists()


def test_no_image_is_a_usage_error(run: Callable[..., Result]) -> None:
    assert run("--point", "2,2").exit_code == 2


def test_bad_images(run: Callable[..., Result], folder: Path) -> None:
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.jpg").touch()
    data = (folder / "photo.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    for name, message in [
        ("missing.png", "There is no file missing.png"),
        ("text.jpg", "text.jpg is not an image"),
        ("empty.jpg", "empty.jpg is empty"),
        (".", "is a folder"),
        ("cut.png", "cut.png is damaged or truncated"),
    ]:
        check_refused(run(name, "--point", "2,2"), message)


def test_missing_image_is_found_before_the_others_are_done(run: Callable[..., Result]) -> None:
    check_refused(run("photo.png", "missing.png", "--point", "2,2"), "There is no file missing.png")


def test_bad_image_keeps_what_is_finished(run: Callable[..., Result], folder: Path) -> None:
    (folder / "text.jpg").write_text("not a picture")
    result = run("photo.png", "text.jpg", "photo.png", "--point", "2,2", "--format", "png", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["image"] == "photo.png"
    assert "text.jpg is not an image" in result.stderr
    assert written() == ["photo_mask_1.png"]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ["prompts.json is not JSON"]),
        ("3", ["prompts.json: it must be a list of objects"]),
        ('{"photo.png": 3}', ["image 'photo.png': it must be a list of objects"]),
        ("[]", ["the list is empty"]),
        ("[{}]", ["object 1: The prompt is empty"]),
        ('[{"points": [[1, 2]]}]', ["object 1, points: extra inputs are not permitted", '"points_xy"']),
        ('[{"box_xyxy": [1, 2, 3, 4]}, {"points_xy": [[1]]}]', ["object 2, points_xy[0]"]),
        ('[{"points_xy": [[1, 2]], "labels": [2]}]', ["object 1, labels[0]: input should be 0 or 1"]),
        ('[{"points_xy": [[1, 2]], "labels": [1, 0]}]', ["object 1: There are 1 points but labels of shape [2]"]),
        ('[{"labels": [1]}]', ["object 1: labels are given without points_xy"]),
        ('[{"box_xyxy": [5, 5, 5, 9]}]', ["object 1: box_xyxy (5, 5, 5, 9) has no area"]),
        ('[{"box_xyxy": [5, 5, 5]}]', ["object 1, box_xyxy"]),
        ('[{"points_xy": [[NaN, 2]]}]', ["object 1: points_xy must be finite"]),
        ('[{"points_xy": [[70, 2]]}]', ["photo.png: Point (70, 2) lies outside"]),
        ('[{"mask": "missing.png"}]', ["There is no file missing.png"]),
        ('{"fhoto.png": [{"points_xy": [[1, 2]]}]}', ["nothing for photo.png", "fhoto.png"]),
        ("{}", ["nothing for photo.png"]),
    ],
)
def test_bad_prompts_files(run: Callable[..., Result], folder: Path, content: str, parts: list[str]) -> None:
    (folder / "prompts.json").write_text(content)
    check_refused(run("photo.png", "--prompts", "prompts.json"), *parts)


def test_prompts_file_that_is_a_folder(run: Callable[..., Result]) -> None:
    check_refused(run("photo.png", "--prompts", "."), "is a folder, not a file")


def test_bad_masks(run: Callable[..., Result], folder: Path) -> None:
    save_image(folder / "small.png", (30, 20))
    Image.new("L", (WIDTH, HEIGHT)).save("black.png")
    (folder / "text.npz").write_text("no array")
    np.save("bool.npy", np.zeros((HEIGHT, WIDTH), np.bool_))
    np.save("complex.npy", np.zeros((3, 3), complex))
    np.save("cube.npy", np.zeros((3, 256, 256), np.float32))
    np.save("object.npy", np.array([{}], dtype=object))
    np.save("nan.npy", np.full((256, 256), np.nan, np.float32))
    np.savez("two.npz", a=np.zeros(2), b=np.zeros(2))
    np.savez("objects.npz", low_res_logits=np.zeros((2, 1, 256, 256)), scores=np.zeros((2, 1)))
    for name, message in [
        ("small.png", "small.png is 30 wide and 20 high, but the image is 60 wide and 40 high"),
        ("black.png", "black.png is all black"),
        ("text.npz", "text.npz cannot be read"),
        ("bool.npy", "bool.npy is all black"),
        ("complex.npy", "complex.npy holds complex128 of shape [3, 3]"),
        ("cube.npy", "cube.npy holds float32 of shape [3, 256, 256]"),
        ("object.npy", "object.npy cannot be read"),
        ("nan.npy", "mask_logits must be finite"),
        ("two.npz", "two.npz holds the arrays a, b"),
        ("objects.npz", "objects.npz holds masks of 2 objects"),
    ]:
        check_refused(run("photo.png", "--mask", name), message)


def test_out_that_is_no_folder(run: Callable[..., Result], folder: Path) -> None:
    (folder / "file").write_text("precious")
    for out in ("file", "file/deeper"):
        check_refused(
            run("photo.png", "--point", "2,2", "--out", out), f"{out} cannot hold the results", "not a folder"
        )
    assert (folder / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")],
)
def test_failing_disk(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    result = run("photo.png", "--point", "2,2")
    assert result.exit_code == 2
    assert "out/photo_overlay.png could not be written" in result.stderr
    assert message in result.stderr
    assert written() == []


def test_images_are_not_overwritten(run: Callable[..., Result], folder: Path) -> None:
    save_image(folder / "photo_overlay.png")
    before = (folder / "photo_overlay.png").read_bytes()
    result = run("photo.png", "photo_overlay.png", "--point", "2,2", "--out", ".")
    assert result.exit_code == 2
    assert "photo_overlay.png is one of the inputs" in result.stderr
    assert (folder / "photo_overlay.png").read_bytes() == before


def test_errors_of_the_model(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise CheckpointError("weights [bold].pt is truncated")

    monkeypatch.setattr(SegmentationTask, "open", fail)
    check_refused(run("photo.png", "--point", "2,2"), "weights [bold].pt is truncated")


def test_interrupt_exits_with_130_and_leaves_nothing(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    result = run("photo.png", "--point", "2,2")
    assert result.exit_code == 130
    assert written() == []


def test_model_is_not_loaded_for_bad_images(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentationTask, "open", lambda *args: pytest.fail("loaded"))
    check_refused(run("photo.png", "--point", "99,2"), "lies outside")


def test_model_gets_the_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_predictor(task: SegmentationTask, progress: object) -> FakePredictor:
        asked.append((task.model, task.max_pixels))
        return FakePredictor()

    monkeypatch.setattr(SegmentationTask, "open", open_predictor)
    arguments = ["segment", "photo.png", "photo.png", "--point", "2,2", "--model", "m.pt", "--device", "cpu"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert asked == [(ModelRef("m.pt", None, "cpu"), 100_000_000)]


def test_names_too_long_and_circles_of_links(run: Callable[..., Result]) -> None:
    Path("loop").symlink_to("loop")
    for path in ("x" * 300, "loop"):
        check_refused(run(path, "--point", "1,1"), path)
        check_refused(run("photo.png", "--mask", path), path)
        check_refused(run("photo.png", "--prompts", path), path)
        result = run("photo.png", "--point", "1,1", "--out", path)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")


def test_masks_and_prompts_are_not_overwritten(run: Callable[..., Result]) -> None:
    mask, prompts = Path("photo_mask_1.png"), Path("photo_coco.json")
    save_image(mask)
    before = mask.read_bytes()
    result = run("photo.png", "--mask", str(mask), "--out", ".", "--format", "png")
    assert (result.exit_code, mask.read_bytes()) == (2, before)
    prompts.write_text('[{"mask": "photo_mask_1.png"}]')
    result = run("photo.png", "--prompts", str(prompts), "--out", ".", "--format", "png")
    assert (result.exit_code, mask.read_bytes()) == (2, before)
    result = run("photo.png", "--prompts", str(prompts), "--out", ".", "--format", "coco")
    assert result.exit_code == 2
    assert "photo_coco.json is one of the inputs" in result.stderr


def test_pixel_limit_holds_for_masks(run: Callable[..., Result]) -> None:
    save_image(Path("mask.png"), (WIDTH + 1, HEIGHT))
    limit = str(WIDTH * HEIGHT)
    check_refused(run("photo.png", "--mask", "mask.png", "--max-pixels", limit), "mask.png", "more than the limit")


def test_prompts_file_nested_too_deeply(run: Callable[..., Result]) -> None:
    Path("deep.json").write_text("[" * 200_000)
    check_refused(run("photo.png", "--prompts", "deep.json"), "deep.json", "nested too deeply")


def test_prompts_file_with_a_byte_order_mark(run: Callable[..., Result]) -> None:
    Path("marked.json").write_text('[{"points_xy": [[1, 2]]}]', encoding="utf-8-sig")
    assert run("photo.png", "--prompts", "marked.json").exit_code == 0


def label_map(dtype: type = np.uint16) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), dtype=dtype)
    labels[2:8, 3:20], labels[20:30, 30:50] = 1, 2
    return labels


@pytest.mark.parametrize("name", ["labels.png", "labels.npy"])
def test_each_label_of_a_mask_is_an_object(run: Callable[..., Result], predictor: FakePredictor, name: str) -> None:
    labels = label_map(np.uint16 if name.endswith("png") else np.int32)
    Image.fromarray(labels).save(name) if name.endswith("png") else np.save(name, labels)
    result = run("photo.png", "--mask", name, "--format", "coco", "--json")
    assert result.exit_code == 0, result.output
    prompts, _ = predictor.asked[0]
    np.testing.assert_array_equal([prompt.mask for prompt in prompts], [labels == 1, labels == 2])
    assert [one["object"] for one in json.loads(result.stdout)["objects"]] == [1, 2]


def test_a_label_of_a_mask_in_a_prompts_file(run: Callable[..., Result], predictor: FakePredictor) -> None:
    Image.fromarray(label_map()).save("labels.png")
    items = [{"mask": "labels.png", "label": 2, "points_xy": [[40, 25]]}, {"mask": "labels.png", "label": 1}]
    Path("prompts.json").write_text(json.dumps(items))
    assert run("photo.png", "--prompts", "prompts.json").exit_code == 0
    one, other = predictor.asked[0][0]
    np.testing.assert_array_equal([one.mask, other.mask], [label_map() == 2, label_map() == 1])
    assert one.points_xy.tolist() == [[40, 25]]


def test_labels_that_are_unclear_are_named(run: Callable[..., Result]) -> None:
    Image.fromarray(label_map()).save("labels.png")
    np.save("logits.npy", np.zeros((256, 256), np.float32))
    for option in (("--point", "5,5"), ("--box", "1,1,9,9")):
        check_refused(
            run("photo.png", "--mask", "labels.png", *option), "labels.png holds 2 labels: 1, 2.", '"label": 1'
        )
    for item, message in [
        ({"mask": "labels.png", "label": 7}, "labels.png has no label 7. Its labels: 1, 2."),
        ({"mask": "logits.npy", "label": 1}, "logits.npy holds logits and no labels"),
        ({"points_xy": [[1, 1]], "label": 1}, "label is given without a mask"),
        ({"mask": "labels.png", "label": 0}, "greater than or equal to 1"),
    ]:
        Path("prompts.json").write_text(json.dumps([item]))
        check_refused(run("photo.png", "--prompts", "prompts.json"), message)


def test_masks_are_read_by_one_rule(run: Callable[..., Result], predictor: FakePredictor) -> None:
    mask = label_map() == 2
    Image.fromarray(np.where(mask, 0, 1).astype(np.uint8)).save("gray.png")
    white_is_index_0 = Image.fromarray(np.where(mask, 0, 1).astype(np.uint8))
    white_is_index_0.putpalette([255, 255, 255, 0, 0, 0])
    white_is_index_0.save("mask.gif")
    Image.fromarray(np.stack([np.full(mask.shape, 255), mask * 255], axis=2).astype(np.uint8)).save("alpha.png")
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save("mask.jpg", quality=80)
    for name in ("mask.gif", "alpha.png", "mask.jpg"):
        result = run("photo.png", "--mask", name)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(predictor.asked[-1][0][0].mask, mask)
    assert "mask.jpg has soft edges" in result.stderr


LOGITS = np.zeros((1, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"low_res_logits": LOGITS, "scores": np.float32(1)}, "not those of a prediction"),
        (
            {"low_res_logits": LOGITS, "scores": np.zeros((1, 4))},
            "not those of a prediction",
        ),
        ({"low_res_logits": LOGITS.astype(int), "scores": np.zeros((1, 3))}, "not those of a prediction"),
        ({"low_res_logits": np.zeros((0, 3, 8, 8)), "scores": np.zeros((0, 3))}, "not those of a prediction"),
        ({"mask": np.zeros((2, 3), "S4")}, "It must be low-res logits"),
        ({"mask": np.array([object()])}, "holds Python objects"),
        ({f"a{number}": np.zeros(1) for number in range(100)}, "holds the arrays a0, a1"),
    ],
)
def test_archives_of_another_content(run: Callable[..., Result], arrays: dict, message: str) -> None:
    np.savez("mask.npz", **arrays)
    result = run("photo.png", "--mask", "mask.npz")
    check_refused(result, "mask.npz", message)
    assert len(result.stderr) < 1000


def test_arrays_are_not_allocated_as_large_as_their_headers_claim(run: Callable[..., Result]) -> None:
    """A few kilobytes took as many gigabytes as they named."""
    for name, shape, dtype in [("a", (10**6, 10**6), "<f4"), ("b", (2, 2), "<U100000000"), ("c", (-1, 5), "<f8")]:
        with zipfile.ZipFile(f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
            file.write(bytes(1 << 20))
        check_refused(run("photo.png", "--mask", f"{name}.npz"), f"{name}.npz", "takes")
    with open("d.npy", "wb") as file:  # noqa: PTH123
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (256, 256)})
    check_refused(run("photo.png", "--mask", "d.npy"), "d.npy cannot be read: it is cut off")


def test_pipes_are_not_opened(run: Callable[..., Result]) -> None:
    for name, options in [("mask.png", "--mask"), ("mask.npy", "--mask"), ("prompts.json", "--prompts")]:
        os.mkfifo(name)
        check_refused(run("photo.png", options, name), name, "not a file but a pipe")


def test_images_are_looked_up_in_any_unicode_form(run: Callable[..., Result], predictor: FakePredictor) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))
    save_image(Path(decomposed))
    Path("prompts.json").write_text(json.dumps({composed: [{"box_xyxy": [1, 2, 3, 4]}]}))
    assert run(decomposed, "--prompts", "prompts.json", "--out", "done").exit_code == 0
    both = {name: [{"box_xyxy": [1, 2, 3, 4]}] for name in (composed, decomposed)}
    Path("prompts.json").write_text(json.dumps(both))
    check_refused(run(decomposed, "--prompts", "prompts.json"), "two lists for the image")


def test_patterns_follow_links_once(run: Callable[..., Result]) -> None:
    """Of a command that takes patterns: links that lead back kept it busy forever."""
    for number in range(3):
        Path(f"back{number}").symlink_to(".")
    from segany.cli.inputs import find_images

    assert find_images([Path("**/*.png")], Path("out")) == [Path("photo.png")]
