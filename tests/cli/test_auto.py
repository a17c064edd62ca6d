"""`segany auto` with a generator that only pretends: files, skipping, failures, interrupts and embeddings."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from tests.instances_for_tests import make_instances
from typer.testing import CliRunner, Result

from segany.cli.app import app
from segany.core.arrays import PixelArray
from segany.core.embedding import Embedding
from segany.core.errors import CheckpointError, ConfigError
from segany.core.instances import Instances
from segany.core.preprocessing import Preprocessing
from segany.core.progress import ProgressCallback, report
from segany.data.formats.table import AUTOMATIC_FORMATS
from segany.hub.model_ref import ModelRef
from segany.imaging.image import content_id, read_image
from segany.jobs.automatic import AutomaticTask
from segany.predict.automatic import AutomaticConfig

WIDTH, HEIGHT = 60, 40


class FakePredictor:
    """Embeds an image as its mean color."""

    def __init__(self) -> None:
        processor = SimpleNamespace(preprocessing=Preprocessing())
        self.model = SimpleNamespace(name="fake", encoder_id="f00d", processor=processor)
        self.embedded = 0

    def embed(self, pixels: PixelArray) -> Embedding:
        self.embedded += 1
        features = (pixels.mean(axis=(0, 1), dtype=np.float32),)
        model = self.model
        return Embedding(
            features, pixels.shape[:2], model.processor.preprocessing, model.name, model.encoder_id, content_id(pixels)
        )


class FakeGenerator:
    """Finds as many masks as `count` says, and remembers what it was given."""

    def __init__(self) -> None:
        self.predictor = FakePredictor()
        self.given: list[PixelArray | Embedding] = []
        self.count = 2
        self.on_generate: Callable[[int], None] = lambda number: None

    def generate(self, image: PixelArray | Embedding, *, progress: ProgressCallback) -> Instances:
        self.given.append(image)
        self.on_generate(len(self.given))
        report(progress, "automatic masks", 5, 10, "points")
        size_hw = image.size_hw if isinstance(image, Embedding) else image.shape[:2]
        masks = np.zeros((self.count, *size_hw), dtype=np.bool_)
        for index, mask in enumerate(masks):
            mask[index : index + 10, index : index + 10] = True
        report(progress, "automatic masks", 10, 10, "points")
        return make_instances(masks)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    fake = FakeGenerator()
    monkeypatch.setattr(AutomaticTask, "open", lambda *args: fake)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: FakeGenerator) -> Callable[..., Result]:
    """Runs `segany auto` with these arguments, in a folder with photos/1.png to photos/3.png."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        save_image(Path(f"photos/{number}.png"), number)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["auto", *arguments], env={"COLUMNS": "200"})

    return invoke


def save_image(path: Path, gray: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (gray, gray, gray)).save(path)


def written(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def coco_and_note(*names: str) -> list[str]:
    return sorted([*(f"{name}_auto_coco.json" for name in names), *(f".segany/{name}.json" for name in names)])


def reports(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def statuses(result: Result) -> list[str]:
    return [report["status"] for report in reports(result)]


def check_refused(result: Result, *parts: str) -> None:
    """Exit code 2, one error on stderr that holds the parts, and nothing written."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert not Path("out").exists()


def test_folder_and_default_formats(run: Callable[..., Result], capsys: pytest.CaptureFixture[str]) -> None:
    result = run("photos")
    assert result.exit_code == 0, result.output
    names = [f"{number}_auto_{what}" for number in (1, 2, 3) for what in ("coco.json", "overlay.png")]
    assert written() == [*(f".segany/{number}.json" for number in (1, 2, 3)), *names]
    assert "photos/1.png  60 x 40, 2 masks, " in result.stdout
    assert result.stdout.splitlines()[-1] == "3 done: out"
    assert result.stderr == ""
    coco = COCO("out/2_auto_coco.json")
    assert coco.loadImgs([1])[0]["file_name"] == "2.png"
    assert len(coco.anns) == 2


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("coco", ["1_auto_coco.json"]),
        ("sa1b", ["1_auto_sa1b.json"]),
        ("label-map", ["1_auto_labels.png"]),
        ("masks-png", ["1_auto_masks/0.png", "1_auto_masks/1.png", "1_auto_masks/metadata.csv"]),
        ("overlay", ["1_auto_overlay.png"]),
        ("npz", ["1_auto.npz"]),
        (" sa1b,coco,sa1b", ["1_auto_coco.json", "1_auto_sa1b.json"]),
    ],
)
def test_every_format(run: Callable[..., Result], name: str, files: list[str]) -> None:
    assert run("photos/1.png", "--format", name).exit_code == 0
    assert written() == [".segany/1.json", *files]


def test_json_lines_tell_everything(run: Callable[..., Result]) -> None:
    Path("photos/0.png").write_text("no image")
    run("photos/2.png", "--format", "coco", "--out", "a/b")
    result = run("photos/*.png", "--format", "coco", "--json", "--out", "a/b")
    assert result.exit_code == 1
    assert len(reports(result)) == 4
    by_image = {report["image"]: report for report in reports(result)}
    assert "is not an image" in by_image["photos/0.png"]["error"]
    assert by_image["photos/2.png"] == {"image": "photos/2.png", "status": "skipped"}
    done = by_image["photos/3.png"]
    assert (done["status"], done["size_hw"], done["masks"]) == ("done", [40, 60], 2)
    assert done["files"] == {"coco": ["a/b/3_auto_coco.json"]}
    assert done["seconds"] >= 0


def test_what_is_done_is_skipped(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("photos").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    monkeypatch.setattr(AutomaticTask, "open", lambda *args: pytest.fail("loaded"))
    result = run("photos")
    assert result.exit_code == 0
    assert result.stdout == "3 done before: out\n"
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (lambda: save_image(Path("photos/2.png"), 99), []),
        (lambda: Path("out/2_auto_coco.json").unlink(), []),
        (lambda: Path("out/.segany/2.json").write_text("{"), []),
        (lambda: Path("out/.segany/2.json").write_text('{"version": 2, "name": "2", "parts": 3}'), []),
        (lambda: None, ["--overwrite"]),
        (lambda: None, ["--format", "coco,sa1b"]),
        (lambda: None, ["--points-per-side", "8"]),
        (lambda: None, ["--preset", "sa1b"]),
        (lambda: None, ["--model", "sam_vit_b"]),
        (lambda: None, ["--format", "label-map", "--label-fill"]),
    ],
)
def test_what_changed_is_done_again(
    run: Callable[..., Result], change: Callable[[], None], arguments: list[str]
) -> None:
    run("photos/2.png", "--format", "coco")
    assert statuses(run("photos/2.png", "--format", "coco", "--json")) == ["skipped"]
    change()
    assert statuses(run("photos/2.png", "--format", "coco", "--json", *arguments)) == ["done"]
    assert statuses(run("photos/2.png", "--format", "coco", "--json", *arguments[:2])) != ["failed"]


def test_a_copied_image_counts_as_done(run: Callable[..., Result]) -> None:
    run("photos", "--format", "coco")
    for path in Path("photos").iterdir():
        os.utime(path, (1, 1))
    assert statuses(run("photos", "--format", "coco", "--json")) == ["skipped"] * 3


def test_another_checkpoint_in_the_same_place_is_another_model(run: Callable[..., Result]) -> None:
    Path("mine.pt").write_bytes(b"one")
    arguments = ("photos/1.png", "--model", "mine.pt", "--json")
    assert statuses(run(*arguments)) == ["done"]
    assert statuses(run(*arguments)) == ["skipped"]
    Path("mine.pt").write_bytes(b"two")
    assert statuses(run(*arguments)) == ["done"]


def test_formats_of_several_runs_add_up(run: Callable[..., Result], generator: FakeGenerator) -> None:
    for formats in ("coco", "sa1b", "coco", "coco,sa1b"):
        run("photos/1.png", "--format", formats)
    assert len(generator.given) == 2


def test_interrupt_keeps_what_is_finished_and_the_next_run_goes_on(
    run: Callable[..., Result], generator: FakeGenerator
) -> None:
    def interrupt(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    generator.on_generate = interrupt
    result = run("photos", "--format", "coco,masks-png")
    assert result.exit_code == 130
    assert "the same command resumes" in result.stderr
    assert "Traceback" not in result.stderr
    assert not any(name.startswith("3") or name.endswith(".tmp") for name in written())
    generator.on_generate = lambda number: None
    result = run("photos", "--format", "coco,masks-png", "--json")
    assert result.exit_code == 0
    assert statuses(result)[-1] == "done"
    assert {f"{number}_auto_coco.json" for number in (1, 2, 3)} <= set(written())


def test_interrupt_while_writing_leaves_no_half_of_a_file(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    assert run("photos").exit_code == 130
    assert written() == []


def test_a_bad_image_does_not_stop_the_others(run: Callable[..., Result]) -> None:
    Path("photos/2.png").write_bytes(Path("photos/1.png").read_bytes()[:60])
    result = run("photos", "--format", "coco")
    assert result.exit_code == 1
    assert written() == coco_and_note("1", "3")
    assert "error: 1 of 3 failed:" in result.stderr
    assert "photos/2.png is damaged or truncated" in result.stderr
    assert result.stdout.splitlines()[-1] == "2 done, 1 failed: out"
    again = run("photos", "--format", "coco", "--json")
    assert again.exit_code == 1
    assert statuses(again) == ["skipped", "failed", "skipped"]


def test_an_image_that_does_not_fit_the_settings_fails_alone(
    run: Callable[..., Result], generator: FakeGenerator
) -> None:
    def refuse(number: int) -> None:
        if number == 2:
            raise ConfigError("the crops would be larger than the image")

    generator.on_generate = refuse
    result = run("photos", "--format", "coco")
    assert result.exit_code == 1
    assert "photos/2.png: the crops would be larger than the image" in result.stderr
    assert written() == coco_and_note("1", "3")


def test_only_bad_images(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutomaticTask, "open", lambda *args: pytest.fail("loaded"))
    for number in (1, 2, 3):
        Path(f"photos/{number}.png").write_bytes(b"")
    result = run("photos", "--max-pixels", "2399")
    assert result.exit_code == 1
    assert result.stderr.count("is empty") == 3


def test_too_many_pixels(run: Callable[..., Result]) -> None:
    result = run("photos/1.png", "--max-pixels", "2399")
    assert result.exit_code == 1
    assert "2,400 pixels" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["missing.png"], ["There is no file missing.png"]),
        (["photos", "missing.png"], ["There is no file missing.png"]),
        (["photos/*.gif"], ["No images match photos/*.gif"]),
        (["photos", "--format", "coco,gif"], ["There is no format 'gif'", "label-map"]),
        (["photos", "--format", ""], ["--format is empty"]),
        (["photos", "--pred-iou-thresh", "2"], ["pred_iou_thresh"]),
        (["photos", "--points-per-side", "0"], ["points_per_side"]),
        (["photos", "--embeddings", "e", "--crop-n-layers", "1"], ["--embeddings", "--crop-n-layers 0"]),
        (["photos", "--embeddings", "e", "--preset", "sa1b"], ["--embeddings"]),
        (["photos", "--embeddings", "photos/1.png"], ["not a folder", "--embeddings"]),
        (["photos", "--out", "photos/1.png"], ["not a folder", "--out"]),
        (["photos", "--out", "photos"], ["folder of the results", "--out"]),
    ],
)
def test_bad_options(run: Callable[..., Result], arguments: list[str], parts: list[str]) -> None:
    check_refused(run(*arguments), *parts)


@pytest.mark.parametrize(
    "arguments", [[], ["photos", "--preset", "best"], ["photos", "--label-order", "x"], ["photos", "--max-pixels", "0"]]
)
def test_usage_errors(run: Callable[..., Result], arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert not Path("out").exists()


def test_errors_of_the_model_stop_everything(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise CheckpointError("weights [bold].pt is truncated")

    monkeypatch.setattr(AutomaticTask, "open", fail)
    check_refused(run("photos"), "weights [bold].pt is truncated")


def test_full_disk_stops_everything(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    result = run("photos")
    assert result.exit_code == 2
    assert "1_auto_coco.json could not be written: there is no space left" in result.stderr
    assert written() == []


def test_images_are_not_overwritten(run: Callable[..., Result]) -> None:
    save_image(Path("1_auto_overlay.png"), 7)
    before = Path("1_auto_overlay.png").read_bytes()
    result = run("photos/1.png", "1_auto_overlay.png", "--out", ".", "--format", "overlay")
    assert result.exit_code == 1
    assert "error: 1 of 2 failed:\n  photos/1.png: 1_auto_overlay.png is one of the inputs" in result.stderr
    assert Path("1_auto_overlay.png").read_bytes() == before


def test_images_of_one_name(run: Callable[..., Result]) -> None:
    save_image(Path("other/1.png"), 50)
    assert run("photos/1.png", "other", "--format", "coco").exit_code == 0
    assert written() == coco_and_note("1", "1_2")


def test_masks_of_an_earlier_run_do_not_stay(run: Callable[..., Result], generator: FakeGenerator) -> None:
    generator.count = 5
    run("photos/1.png", "--format", "masks-png")
    Path("out/1_auto_masks/notes.png").write_text("somebody's own")
    generator.count = 1
    run("photos/1.png", "--format", "masks-png", "--overwrite")
    assert sorted(path.name for path in Path("out/1_auto_masks").iterdir()) == ["0.png", "metadata.csv", "notes.png"]


def test_embeddings_are_saved_and_used_again(run: Callable[..., Result], generator: FakeGenerator) -> None:
    assert run("photos", "--embeddings", "kept", "--format", "coco").exit_code == 0
    names = sorted(f"{content_id(read_image(path))}.safetensors" for path in Path("photos").iterdir())
    assert sorted(Path(name).name for name in written("kept")) == names
    assert generator.predictor.embedded == 3
    assert run("photos", "--embeddings", "kept", "--format", "sa1b").exit_code == 0
    assert generator.predictor.embedded == 3
    assert all(isinstance(image, Embedding) for image in generator.given)


def test_embeddings_of_others_are_not_used(run: Callable[..., Result], generator: FakeGenerator) -> None:
    arguments = ("photos/1.png", "--embeddings", "kept", "--overwrite")
    assert run(*arguments).exit_code == 0
    (path,) = Path("kept").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])  # damaged
    assert run(*arguments).exit_code == 0
    assert generator.predictor.embedded == 2
    Embedding.load(path)
    generator.predictor.model.processor.preprocessing = Preprocessing(input_size=512)
    assert run(*arguments).exit_code == 0
    assert generator.predictor.embedded == 3
    generator.predictor.model.encoder_id = "beef"
    assert run(*arguments).exit_code == 0
    assert generator.predictor.embedded == 4
    assert len(written("kept")) == 3


def test_the_model_gets_the_options(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_generator(task: AutomaticTask, progress: object) -> FakeGenerator:
        asked.append(task)
        return FakeGenerator()

    monkeypatch.setattr(AutomaticTask, "open", open_generator)
    result = run(
        "photos", "--model", "m.pt", "--device", "cpu", "--points-per-side", "9", "--pred-iou-thresh", "0.7",
        "--stability-score-thresh", "0.9", "--crop-n-layers", "1", "--crop-n-points-downscale-factor", "2",
        "--min-mask-region-area", "30", "--min-mask-area", "20", "--max-mask-fraction", "0.95", "--max-pixels", "9999",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = AutomaticConfig(
        points_per_side=9, pred_iou_thresh=0.7, stability_score_thresh=0.9, crop_n_layers=1,
        crop_n_points_downscale_factor=2, min_mask_region_area=30, min_mask_area=20, max_mask_fraction=0.95,
    )  # fmt: skip
    assert [(task.model, task.config, task.max_pixels) for task in asked] == [
        (ModelRef("m.pt", None, "cpu"), config, 9999)
    ]


@pytest.mark.parametrize("preset", ["default", "sa1b"])
def test_presets(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    asked = []
    monkeypatch.setattr(AutomaticTask, "open", lambda task, _: asked.append(task.config) or FakeGenerator())
    presets = {"default": AutomaticConfig(), "sa1b": AutomaticConfig.sa1b()}
    assert run("photos/1.png", "--preset", preset).exit_code == 0
    assert asked == [presets[preset]]


def test_no_masks_are_a_result(run: Callable[..., Result], generator: FakeGenerator) -> None:
    generator.count = 0
    result = run("photos/1.png", "--format", ",".join(AUTOMATIC_FORMATS))
    assert result.exit_code == 0
    assert "0 masks" in result.stdout


def test_a_folder_that_is_no_export(run: Callable[..., Result]) -> None:
    check_refused(run("photos", "--model", "photos"), "is no exported model: it has no manifest.json")


def test_name_of_a_model_too_long(run: Callable[..., Result]) -> None:
    check_refused(run("photos", "--model", "x" * 300), "cannot be used: File name too long")
