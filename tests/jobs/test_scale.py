"""Automatic masks at any scale: sources in any storage, Parquet parts, executors, kills."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from tests.models_for_tests import SMALL_TINY_VIT, small_sam
from typer.testing import CliRunner

from segany import AutomaticConfig, AutomaticMaskGenerator, DataError, MissingExtraError, ModelRef, load
from segany.cli.app import app
from segany.core.errors import ConfigError
from segany.jobs import DoneRecords
from segany.jobs.automatic import AutomaticTask
from segany.jobs.automatic import ImageItem as FileItem
from segany.jobs.executors import RayExecutor
from segany.jobs.parquet import read_parts
from segany.jobs.scale import ImageDone, ScaleTask, run_at_scale, run_on
from segany.jobs.sources import Shard, list_sources
from segany.models.model_file import save_model

CONFIG = AutomaticConfig(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_sam(SMALL_TINY_VIT), tmp_path_factory.mktemp("model") / "tiny.safetensors")


def png(seed: int, size_hw: tuple[int, int] = (24, 32)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size_hw, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "nested").mkdir(parents=True)
    for number in range(5):
        (folder / "nested" / f"{number}.png").write_bytes(png(number))
    (folder / ".hidden.png").write_bytes(png(99))
    (folder / "notes.md").write_text("no image")
    return folder


def task(model: Path, out: Path | str, **changes: object) -> ScaleTask:
    return ScaleTask(ModelRef(str(model), device="cpu"), str(out), **{"config": CONFIG, **changes})


def statuses(results: list[ImageDone]) -> Counter[str]:
    return Counter(result.status for result in results)


# Results.


def test_parquet_has_the_masks_of_the_generator_and_what_made_them(model: Path, photos: Path, tmp_path: Path) -> None:
    work = task(model, tmp_path / "out")
    results = run_at_scale(work, list_sources([str(photos)]))
    assert statuses(results) == {"done": 5}
    generator = AutomaticMaskGenerator(load(model), CONFIG)
    rows = {row.url: row for row in read_parts(str(tmp_path / "out"))}
    assert sorted(rows) == [str(photos / "nested" / f"{number}.png") for number in range(5)]
    for url, row in rows.items():
        wanted = generator.generate(url)
        assert len(wanted)
        assert row.instances.rle_counts == wanted.rle_counts
        assert row.instances.size_hw == (24, 32)
        for name in ("boxes_xyxy", "scores"):
            np.testing.assert_array_equal(getattr(row.instances, name), getattr(wanted, name))
        for name in ("predicted_iou", "stability_score", "point_xy", "crop_box_xyxy"):
            np.testing.assert_array_equal(row.instances.columns[name], wanted.columns[name])
        assert row.model == ModelRef(str(model)).identity()
        assert json.loads(row.settings)["config"]["points_per_side"] == 2


def test_what_is_done_is_skipped_by_version_and_by_content(model: Path, photos: Path, tmp_path: Path) -> None:
    work = task(model, tmp_path / "out")
    run_at_scale(work, list_sources([str(photos)]))
    os.utime(photos / "nested" / "0.png", (1, 1))  # the same content
    (photos / "nested" / "1.png").write_bytes(png(50))
    results = {Path(one.url).name: one.status for one in run_at_scale(work, list_sources([str(photos)]))}
    assert results == {"0.png": "skipped", "1.png": "done", "2.png": "skipped", "3.png": "skipped", "4.png": "skipped"}
    assert len(list(read_parts(str(tmp_path / "out")))) == 5  # the newest of each
    assert statuses(run_at_scale(work, list_sources([str(photos)]), overwrite=True)) == {"done": 5}
    other = task(model, tmp_path / "out", config=AutomaticConfig(points_per_side=1, pred_iou_thresh=0.0))
    assert statuses(run_at_scale(other, list_sources([str(photos)]))) == {"done": 5}
    assert len(list(read_parts(str(tmp_path / "out")))) == 10  # for each settings


def test_a_bad_image_fails_alone_and_is_tried_again(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"nonsense")
    work = task(model, tmp_path / "out")
    failed = [one for one in run_at_scale(work, list_sources([str(photos)]), part_images=2) if one.status == "failed"]
    assert [one.url for one in failed] == [str(photos / "bad.png")]
    assert "is not an image" in failed[0].error
    (photos / "bad.png").write_bytes(png(7))
    assert statuses(run_at_scale(work, list_sources([str(photos)]))) == {"skipped": 5, "done": 1}


# Sources.


def test_object_stores_hold_images_and_results(model: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    for number in range(3):
        with fsspec.open(f"{bucket}/in/{number}.png", "wb") as file:
            file.write(png(number))
    work = task(model, f"{bucket}/out")
    assert statuses(run_at_scale(work, list_sources([f"{bucket}/in/*.png"]))) == {"done": 3}
    assert statuses(run_at_scale(work, list_sources([f"{bucket}/in"]))) == {"skipped": 3}
    assert {row.url for row in read_parts(f"{bucket}/out")} == {
        f"{bucket.replace('://', ':///')}/in/{i}.png" for i in range(3)
    }


@pytest.fixture
def web_server(photos: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_listing_file_names_urls_and_paths(model: Path, photos: Path, tmp_path: Path, web_server: str) -> None:
    listing = photos / "list.txt"
    listing.write_text(f"# two of them\n{web_server}/nested/1.png\nnested/2.png\n\n{web_server}/missing.png\n")
    results = run_at_scale(task(model, tmp_path / "out"), list_sources([str(listing)]))
    assert {one.url: one.status for one in results} == {
        f"{web_server}/nested/1.png": "done",
        f"{photos}/nested/2.png": "done",
        f"{web_server}/missing.png": "failed",
    }


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_shard_is_read_in_parts_and_resumes_within(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "sa_000000.tar"
    shard(path, {**{f"a/{number}.png": png(number) for number in range(5)}, "a/0.json": b"{}", "bad.jpg": b"x"})
    work = task(model, tmp_path / "out")
    results = run_at_scale(work, list_sources([str(path)]), part_images=2)
    assert statuses(results) == {"done": 5, "failed": 1}
    parts = list((tmp_path / "out" / "parts").iterdir())
    assert len(parts) == 3
    parts[0].unlink()  # as if the worker had been killed before it
    again = run_at_scale(work, list_sources([str(path)]), part_images=2)
    lost = statuses(again)["done"]
    assert lost in (1, 2)
    assert statuses(again)["skipped"] == 5 - lost
    assert {row.url for row in read_parts(str(tmp_path / "out"))} == {f"{path}#a/{number}.png" for number in range(5)}


def test_a_cut_shard_gives_what_it_has_and_fails(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    shard(path, {f"{number}.png": png(number, (200, 200)) for number in range(3)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    results = run_at_scale(task(model, tmp_path / "out"), [Shard(str(path))])
    assert statuses(results) == {"done": 1, "failed": 1}
    assert "cannot be read as a tar file" in results[0].error + results[1].error


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("missing", DataError, "cannot be listed"),
        ("empty", DataError, "holds neither images nor"),
        ("nonsense://x", DataError, "cannot be opened"),
        ("sftp://host/x", MissingExtraError, "needs a package"),
    ],
)
def test_places_that_are_refused(place: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        list_sources([place if "://" in place else str(tmp_path / place)])


def test_a_damaged_part_is_named(model: Path, photos: Path, tmp_path: Path) -> None:
    run_at_scale(task(model, tmp_path / "out"), list_sources([str(photos)]))
    part = next((tmp_path / "out" / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{part.name} is damaged.*Delete it"):
        list(read_parts(str(tmp_path / "out")))


# The command.


def test_the_command_writes_parquet_and_says_what_failed(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"nonsense")
    out = tmp_path / "out"
    arguments = ["auto", str(photos), "--format", "parquet", "--out", str(out), "--model", str(model), "--json"]
    result = CliRunner().invoke(app, [*arguments, "--points-per-side", "2", "--pred-iou-thresh", "0"])
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert Counter(one["status"] for one in told) == {"done": 5, "failed": 1}
    assert "1 of 6 failed" in result.stderr
    assert len(list(read_parts(str(out)))) == 5


def test_options_that_do_not_fit(model: Path, photos: Path) -> None:
    for arguments, message in (
        (["s3://bucket/photos"], "with --format parquet"),
        ([str(photos), "--workers", "2"], "for --executor ray"),
        ([str(photos), "--format", "parquet", "--embeddings", "x"], "leave out --embeddings"),
    ):
        result = CliRunner().invoke(app, ["auto", *arguments, "--model", str(model)])
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())


# Ray, whose own code uses what it deprecates.


@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_results(model: Path, photos: Path, tmp_path: Path) -> None:
    sources = list_sources([str(photos)])
    run_at_scale(task(model, tmp_path / "plain"), sources)
    executor = RayExecutor(workers=2)
    results = run_at_scale(task(model, tmp_path / "ray"), sources, executor, part_images=1)
    assert statuses(results) == {"done": 5}
    wanted, found = (
        {row.url: row.instances.rle_counts for row in read_parts(str(tmp_path / name))} for name in ("plain", "ray")
    )
    assert found == wanted


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_does_not_fit_the_machine(model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not enough for a worker"):
        run_at_scale(task(model, tmp_path), list_sources([str(photos)]), RayExecutor(gpus=8))


def workers_of_ray() -> list[int]:
    """The processes of the workers, which Ray names after what they do."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::MapWorker"):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_killed_workers_lose_and_double_nothing(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.png").write_bytes(png(number))
    killed = []

    def kill_twice(result: ImageDone) -> None:
        del result
        if len(killed) < 2:
            killed.append(workers_of_ray()[0])
            os.kill(killed[-1], signal.SIGKILL)
            time.sleep(1)

    work = task(model, tmp_path / "out")
    executor = RayExecutor(workers=2)
    results = run_at_scale(work, list_sources([str(folder)]), executor, part_images=4, on_result=kill_twice)
    assert len(killed) == 2
    assert statuses(results) == {"done": 200}
    assert sorted(_all_urls(tmp_path / "out")) == sorted(map(str, folder.iterdir()))


def _all_urls(out: Path) -> list[str]:
    """The images in all parts, doubled ones too."""
    parts = [part for part in (out / "parts").iterdir() if part.suffix == ".parquet"]
    return [url for part in parts for url in parquet.read_table(part, columns=["url"])["url"].to_pylist()]


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_the_rerun_skips_what_is_done(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03}.png").write_bytes(png(number))
    options = ["--points-per-side", "2", "--pred-iou-thresh", "0", "--model", str(model), "--executor", "ray"]
    start = "from segany.cli import main; main()"
    command = [sys.executable, "-c", start, "auto", str(folder), "--format", "parquet"]
    command += ["--out", str(tmp_path / "out"), "--workers", "2", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    parts = tmp_path / "out" / "parts"
    while not parts.is_dir() or len([one for one in parts.iterdir() if one.suffix == ".parquet"]) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(list(read_parts(str(tmp_path / "out"))))
    assert 0 < before < 60
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=240)
    told = Counter(json.loads(line)["status"] for line in done.stdout.splitlines())
    assert told["done"] + told["skipped"] == 60
    assert told["skipped"] >= before
    assert sorted(_all_urls(tmp_path / "out")) == sorted(map(str, folder.iterdir()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_image_that_kills_its_worker_fails_alone(model: Path, photos: Path, tmp_path: Path) -> None:
    items = [FileItem(path, path.stem) for path in sorted((photos / "nested").iterdir())]
    work = Deadly(ModelRef(str(model), device="cpu"), tmp_path / "out", CONFIG, formats=("coco",))
    results = run_on(RayExecutor(workers=2), work, items, DoneRecords(tmp_path / "out" / ".segany"))
    assert {one.item.name: one.status for one in results} == {
        "0": "done", "1": "done", "2": "failed", "3": "done", "4": "done",
    }  # fmt: skip
    assert "the workers that had it died" in str(next(one.error for one in results if one.item.name == "2"))
    assert (tmp_path / "out" / "4_auto_coco.json").is_file()


class Deadly(AutomaticTask):
    """Dies at the image 2, as from a fault in a decoder."""

    def read(self, item: FileItem) -> np.ndarray:
        if item.name == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(item)
