"""`segany evaluate` on small folders, with a model whose masks can be told by hand, and with one that tracks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluate import video_cases
from tests.evaluate.painting import PaintingModel, blocks
from tests.models_for_tests import loaded, small_sam2
from typer.testing import CliRunner, Result

from segany.cli import evaluate as command
from segany.cli.app import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture
def model(monkeypatch) -> PaintingModel:
    model = PaintingModel()
    monkeypatch.setattr(command, "load_model", lambda *_: model)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images and their label maps, and one whose label map is torn."""
    root = tmp_path / "shapes"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for name in ("a", "b", "torn"):
        pixels = blocks().image
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        Image.fromarray(pixels[..., 0]).save(root / "masks" / f"{name}.png")
    (root / "masks" / "torn.png").write_bytes(b"no picture")
    return root


def test_numbers_are_told_and_written(model, folder, tmp_path):
    out = tmp_path / "out"
    result = run(folder, "--out", out, "--protocol", "clicks,box,noc")
    assert result.exit_code == 0, result.output
    assert "clicks: miou_3" in result.stdout
    assert "2 measured, 1 could not be read" in result.stdout
    assert "torn" in result.stdout
    written = json.loads((out / "shapes" / "results.json").read_text())
    assert written["protocols"]["noc"]["numbers"]["noc_80"] == 2.5
    assert written["protocols"]["box"]["numbers"] == {"objects": 4, "box_miou": 1}
    names = {"results.json", "curves.png", "clicks_failures.png", "box_failures.png", "noc_failures.png"}
    lines = {"clicks.jsonl", "box.jsonl", "noc.jsonl"}
    assert {path.name for path in (out / "shapes").iterdir()} == names | lines | {".segany"}


def test_images_without_masks_are_counted(model, folder, tmp_path):
    Image.fromarray(blocks().image).save(folder / "images" / "new.png")
    result = run(folder, "--out", tmp_path / "out", "--failures", 0)
    assert "2 measured, 1 could not be read, 1 images without masks left out" in result.stdout


def test_what_datasets_leave_out_is_in_the_reports(model, tmp_path):
    image = blocks().image
    (tmp_path / "coco").mkdir()
    Image.fromarray(image).save(tmp_path / "coco" / "a.png")
    height, width = image.shape[:2]
    square = [[1, 1, 9, 1, 9, 9, 1, 9]]
    annotations = [{"id": number, "image_id": number, "segmentation": square} for number in (1, 2, 3)]
    images = [{"id": 1, "file_name": "../coco/a.png", "height": height, "width": width}]
    (tmp_path / "coco" / "a.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    arguments = (tmp_path / "coco" / "a.json", "--out", tmp_path / "out", "--failures", 0)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--trust-paths" in result.stderr
    result = run(*arguments, "--trust-paths")
    assert "1 measured, 2 annotations of images that are not listed left out" in result.stdout
    assert "2 annotations are left out, since their images are not listed" in result.stderr
    written = json.loads((tmp_path / "out" / "a" / "results.json").read_text())
    assert written["omitted"] == {"annotations of images that are not listed": 2}


def test_what_is_an_object_is_chosen(model, folder, tmp_path):
    for number, (options, objects) in enumerate([((), 4), (("--objects", "foreground", "--mask-threshold", 0), 2)]):
        out = tmp_path / str(number)
        assert run(folder, "--out", out, "--protocol", "box", "--failures", 0, *options).exit_code == 0
        written = json.loads((out / "shapes" / "results.json").read_text())
        assert written["protocols"]["box"]["numbers"]["objects"] == objects
    result = run(folder, "--out", tmp_path / "0", "--protocol", "box", "--objects", "parts")
    assert "results of another model, other data or other settings" in result.stderr
    assert run(folder, "--objects", "values").exit_code == 2


def test_the_same_command_goes_on_and_overwrite_begins_anew(model, folder, tmp_path):
    arguments = (folder, "--out", tmp_path / "out", "--failures", 0)
    assert run(*arguments).exit_code == 0
    assert model.embedded == 2
    assert run(*arguments).exit_code == 0
    assert model.embedded == 2
    assert run(*arguments, "--overwrite", "--max-images", 1).exit_code == 0
    assert model.embedded == 3


def test_json_is_a_line_a_dataset(model, folder, tmp_path):
    other = tmp_path / "elsewhere" / "shapes"
    other.parent.mkdir()
    folder.rename(other)
    folder.mkdir()
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    Image.fromarray(blocks().image).save(folder / "images" / "a.png")
    Image.fromarray(blocks().image[..., 0]).save(folder / "masks" / "a.png")
    result = run(other, folder, "--out", tmp_path / "out", "--json", "--failures", 0)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["dataset"], line["measured"]) for line in lines] == [("shapes", 2), ("shapes_2", 1)]


def test_videos_are_tracked(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load_model", lambda *_: loaded(small_sam2()))
    root = tmp_path / "davis"
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / "clip").mkdir(parents=True)
    for frame in range(4):
        pixels = np.zeros((48, 64), dtype=np.uint8)
        pixels[10:30, 5 + frame : 25 + frame] = 1
        Image.fromarray(pixels * 200).convert("RGB").save(root / "JPEGImages" / "480p" / "clip" / f"{frame:05d}.jpg")
        Image.fromarray(pixels).save(root / "Annotations" / "480p" / "clip" / f"{frame:05d}.png")
    result = run(root, "--out", tmp_path / "out", "--protocol", "video")
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "out" / "davis" / "results.json").read_text())["protocols"]["video"]["numbers"]
    assert (numbers["objects"], numbers["frames"]) == (1, 2)
    assert numbers["jf"] == pytest.approx((numbers["j"] + numbers["f"]) / 2)
    assert (tmp_path / "out" / "davis" / "curves.png").is_file()


def test_the_validation_split_is_measured(monkeypatch, tmp_path):
    """Training videos lie in the same folders."""
    monkeypatch.setattr(command, "load_model", lambda *_: loaded(small_sam2()))
    root = video_cases.write_davis(tmp_path / "davis")
    result = run(root, "--out", tmp_path / "out", "--protocol", "video")
    assert result.exit_code == 0, result.output
    assert "davis, split val: 1 measured" in result.stdout
    result = run(root, "--out", tmp_path / "train", "--protocol", "video", "--split", "train")
    assert "davis, split train: 1 measured" in result.stdout
    result = run(root, "--out", tmp_path / "other", "--protocol", "video", "--split", "test")
    assert "no split 'test'. It has train, val" in result.stderr
    result = run(root, "--out", tmp_path / "other", "--split", "val")
    assert "--split is for --protocol video" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{}/missing",), "There is no"),
        (("{}/empty",), "is empty"),
        (("{}/shapes", "--protocol", "guess"), "There is no protocol 'guess'"),
        (("{}/shapes", "--protocol", "video,box"), "Give it alone"),
        (("{}/shapes", "--protocol", "video"), "shapes"),
        (("{}/shapes", "--out", "{}/shapes/images/a.png"), "is not a folder"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(model, folder, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    out = () if "--out" in arguments else ("--out", tmp_path / "out")
    result = run(*(text.format(tmp_path) for text in arguments), *out)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert model.embedded == 0


def test_a_model_for_images_cannot_track(model, tmp_path):
    root = tmp_path / "davis"
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "clip").mkdir(parents=True)
        Image.fromarray(np.ones((8, 8), dtype=np.uint8)).save(root / kind / "clip" / "00000.png")
    result = run(root, "--out", tmp_path / "out", "--protocol", "video")
    assert result.exit_code == 2, result.output
    assert "works on single images" in result.output


def test_results_of_another_model_are_kept(model, folder, tmp_path):
    assert run(folder, "--out", tmp_path / "out", "--failures", 0).exit_code == 0
    model.encoder_id = "tuned"
    result = run(folder, "--out", tmp_path / "out", "--failures", 0)
    assert result.exit_code == 2
    assert "--overwrite" in result.output


def test_results_of_a_folder_of_the_same_name_are_not_taken_over(model, folder, tmp_path):
    assert run(folder, "--out", tmp_path / "out", "--failures", 0).exit_code == 0
    other = tmp_path / "elsewhere" / "shapes"
    shutil.copytree(folder, other)
    result = run(other, "--out", tmp_path / "out", "--failures", 0)
    assert result.exit_code == 2, result.output
    assert "other data" in result.output


@pytest.mark.parametrize("module", ["scipy", "matplotlib"])
def test_what_is_not_installed_is_said_before_anything_is_measured(model, folder, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    result = run(folder, "--out", tmp_path / "out", "--protocol", "box")
    assert result.exit_code == 2, result.output
    assert "segany[train]" in result.output
    assert model.embedded == 0


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['segany', 'evaluate', '--help']\nfrom segany.cli import main\n"
    code += "try: main()\nexcept SystemExit: print(sorted({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "--protocol" in result.stdout
