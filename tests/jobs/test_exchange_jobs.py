"""Imports and exports as jobs: their results, cancellation, and processes that are killed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.databases_for_tests import database_url, postgres, shared_postgres_url
from tests.exchange_for_tests import NAMES, add_picture, content, fill, make_zip, masks_only, picture
from tests.store_for_tests import new_id

from segany import CanceledError, DataError, NotFoundError, OutputError
from segany.core.progress import Cancellation, ProgressEvent
from segany.jobs.exchange import (
    Uploads,
    export_annotations,
    export_handler,
    exported_file,
    import_annotations,
    import_handler,
)
from segany.jobs.queue import JobQueue, QueueConfig
from segany.store import Job, Store

__all__ = ["database_url", "postgres", "shared_postgres_url"]

FORMATS = ("coco", "yolo-seg", "labelme", "sa-1b", "label-maps", "project")


@pytest.fixture
def store(tmp_path: Path, database_url: str | None) -> Iterator[Store]:
    with Store.create(tmp_path / "project", database=database_url) as opened:
        fill(opened)
        yield opened


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "filled") as opened:
        fill(opened)
        yield opened


def _run(store: Store, kind: str, arguments: dict[str, Any]) -> Job:
    handlers = {"import": import_handler(store), "export": export_handler(store)}
    with JobQueue(store, handlers, QueueConfig(poll_seconds=0.05)):
        job = store.jobs.submit(kind, arguments)
        deadline = time.monotonic() + 60
        while store.jobs.get(job.id).state in ("queued", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return store.jobs.get(job.id)


def _upload(store: Store, *files: tuple[str, Path]) -> str:
    """Upload files under names, a part each."""
    upload = new_id()
    for number, (name, path) in enumerate(files):
        with path.open("rb") as file:
            Uploads(store).put(upload, number, [(name, file)])
    return upload


def test_jobs_export_and_import(store: Store, tmp_path: Path) -> None:
    done = _run(store, "export", {"format": "coco", "filter": {"state": "done"}, "images": True})
    assert (done.state, done.result) == ("done", {"file": "coco.zip", "items": 1, "objects": 1, "lost": []})
    path = exported_file(store, done.id)
    assert path.is_relative_to(store.folder / "cache/exports" / done.id)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"images/{NAMES[2]}", "annotations/instances.json"]
    with Store.create(tmp_path / "other") as other:
        arguments = {"format": "coco", "upload": _upload(other, ("../../names are data.zip", path))}
        first = _run(other, "import", {**arguments, "author": "ada"})
        assert (first.state, first.result) == ("done", {"items": 1, "objects": 1, "skipped": []})
        assert masks_only(content(other)) == {NAMES[2]: masks_only(content(store))[NAMES[2]]}
        (item,) = other.items.page().items
        assert [state.author for state in other.annotations.objects(item.id)] == ["ada"]
        again = {**arguments, "upload": _upload(other, ("a.zip", path))}
        assert _run(other, "import", again).result == first.result
        with pytest.raises(DataError, match="Upload them again"):
            Uploads(other).files(arguments["upload"])  # of the job before
        assert [file.name for file in Uploads(other).files(again["upload"])] == ["a.zip"]


def test_jobs_that_cannot_be_done_say_why(filled: Store, tmp_path: Path) -> None:
    bad = make_zip(tmp_path / "bad.zip", {"../a.json": "{}"})
    upload = _upload(filled, ("bad.zip", bad))
    failed = _run(filled, "import", {"format": "coco", "upload": upload})
    assert (failed.state, "leads out of the archive" in failed.message) == ("failed", True)
    assert _run(filled, "import", {"format": "coco", "upload": "../../etc"}).state == "failed"
    assert _run(filled, "export", {"format": "voc"}).state == "failed"
    assert list((filled.folder / "cache").glob("exports/*/*")) == []
    with pytest.raises(NotFoundError, match="no exported file"):
        exported_file(filled, failed.id)
    with pytest.raises(DataError, match="no id"):
        Uploads(filled).put("..", 0, [])
    with pytest.raises(DataError, match="no number of a part"):
        Uploads(filled).put(new_id(), -1, [])


def test_parts_of_an_upload_are_read_in_their_order_and_may_come_twice(filled: Store, tmp_path: Path) -> None:
    upload, uploads = new_id(), Uploads(filled)
    for part in (10, 2, 10):
        uploads.put(upload, part, [(f"{part}.json", io.BytesIO(b"first")), ("b.json", io.BytesIO(b"%d" % part))])
    files = uploads.files(upload)
    assert [file.name for file in files] == ["2.json", "b.json", "10.json", "b.json"]
    assert [file.path.read_bytes() for file in files] == [b"first", b"2", b"first", b"10"]


def test_part_of_an_upload_that_breaks_off_is_not_there(filled: Store) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(28, "No space left on device")

    upload, uploads = new_id(), Uploads(filled)
    uploads.put(upload, 0, [("a.json", io.BytesIO(b"{}"))])
    with pytest.raises(OutputError, match="no space left"):
        uploads.put(upload, 1, [("b.json", io.BytesIO(b"{}")), ("c.json", Broken())])
    assert [file.name for file in uploads.files(upload)] == ["a.json"]


def test_uploads_without_an_import_are_removed_after_a_day(filled: Store) -> None:
    uploads = Uploads(filled)
    old, new = (_upload(filled, ("a.json", Path(__file__))) for _ in range(2))
    os.utime(filled.folder / "cache" / "imports" / old, (0, time.time() - 25 * 3600))
    uploads.remove_ended()
    assert len(uploads.files(new)) == 1
    with pytest.raises(DataError, match="Upload them again"):
        uploads.files(old)


def test_messages_of_a_job_are_bounded(filled: Store, tmp_path: Path) -> None:
    notes = make_zip(tmp_path / "a.zip", {"a.json": "{}", **{f"{n}{'x' * 400}.md": "" for n in range(1100)}})
    done = _run(filled, "import", {"format": "coco", "upload": _upload(filled, ("a.zip", notes))})
    assert done.state == "done"
    assert len(done.result["skipped"]) == 1001
    assert done.result["skipped"][-1]["message"] == "And 101 more."
    assert max(len(one["name"]) for one in done.result["skipped"]) <= 300


def test_old_exports_make_way_for_new_ones(filled: Store) -> None:
    jobs = [_run(filled, "export", {"format": "sa-1b"}) for _ in range(22)]
    assert exported_file(filled, jobs[-1].id).is_file()
    with pytest.raises(NotFoundError, match="newer ones"):
        exported_file(filled, jobs[0].id)


@pytest.mark.parametrize("name", FORMATS)
def test_canceled_export_leaves_nothing(filled: Store, tmp_path: Path, name: str) -> None:
    cancellation = Cancellation()
    target = tmp_path / "out" / "a.zip"

    def cancel(event: ProgressEvent) -> None:
        if event.done == 2:
            cancellation.cancel()

    with pytest.raises(CanceledError):
        export_annotations(filled, target, name, images=True, progress=cancel, cancellation=cancellation)
    assert list(target.parent.iterdir()) == []
    target.write_bytes(b"the one before")
    with pytest.raises(CanceledError):
        export_annotations(filled, target, name, cancellation=cancellation)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"the one before"]


@pytest.mark.parametrize("name", FORMATS[:-1])
def test_import_that_was_canceled_is_completed(filled: Store, tmp_path: Path, name: str) -> None:
    file = export_annotations(filled, tmp_path / "a.zip", name, images=True).file
    with Store.create(tmp_path / "whole") as whole, Store.create(tmp_path / "parts") as parts:
        first = import_annotations(whole, file, name)
        for stop in (2, 4, 7, 9):
            cancellation = Cancellation()

            def cancel(event: ProgressEvent, stop: int = stop, cancellation: Cancellation = cancellation) -> None:
                if event.done == stop:
                    cancellation.cancel()
                    cancellation.check()

            with pytest.raises(CanceledError):
                import_annotations(parts, file, name, progress=cancel)
        assert import_annotations(parts, file, name) == first
        assert content(parts) == content(whole)


@pytest.mark.parametrize("name", ["coco", "project"])
def test_import_survives_kill_9(filled: Store, tmp_path: Path, name: str) -> None:
    file = export_annotations(filled, tmp_path / "a.zip", name, images=True).file
    Store.create(tmp_path / "killed").close()
    program = (
        "import os, sys\n"
        "from segany.jobs.exchange import import_annotations\n"
        "from segany.store import Store\n"
        "def kill(event):\n"
        "    if event.done == int(sys.argv[4]):\n"
        "        os.kill(os.getpid(), 9)\n"
        "with Store.open(sys.argv[1]) as store:\n"
        "    import_annotations(store, sys.argv[2], sys.argv[3], progress=kill)\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(tmp_path / "killed"),
        str(file),
        name,
        "4" if name == "project" else "8",
    ]
    assert subprocess.run(command, check=False).returncode == -9
    with Store.open(tmp_path / "killed") as killed:
        for _ in range(2):
            report = import_annotations(killed, file, name)
            assert (report.items, report.objects) == (5, 10)
            assert masks_only(content(killed)) == masks_only(content(filled))


def test_names_of_items_are_never_paths(tmp_path: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        names = [
            "../../etc/passwd",
            "/abs.png",
            "C:\\x\\a.png",
            "A.png",
            "a.PNG",
            "a.jpg",
            ".hidden.png",
            "..",
            "a\nb.png",
        ]
        for seed, name in enumerate(names):
            add_picture(store, name, picture(seed))
        for name in FORMATS[:-1]:
            report = export_annotations(store, tmp_path / "a.zip", name, images=True)
            assert any(line.startswith("Names of images, changed") for line in report.lost)
            with zipfile.ZipFile(report.file) as archive:
                members = archive.namelist()
                assert len({member.casefold() for member in members}) == len(members)
                for member in members:
                    assert not member.startswith("/")
                    assert not {"", ".", ".."} & set(member.split("/"))
                    assert member.isprintable()
                    assert ":" not in member
            with Store.create(tmp_path / f"other {name}") as other:
                assert import_annotations(other, report.file, name).items == 9


@pytest.mark.slow
def test_large_exports_need_little_memory(tmp_path: Path) -> None:
    """100,000 objects, in a process of its own: the memory of this one has seen other things.

    Of the formats, COCO alone has one file for all images.
    """
    program = (
        "import resource, sys, uuid\n"
        "from pathlib import Path\n"
        "from tests.exchange_for_tests import add_picture, counts_of, difficult_masks, picture\n"
        "from segany.jobs.exchange import export_annotations\n"
        "from segany.store import Change, Store\n"
        "counts = [counts_of(one) for one in difficult_masks().values()]\n"
        "new = lambda: str(uuid.uuid4())\n"
        "with Store.create(sys.argv[1]) as store:\n"
        "    for number in range(100):\n"
        "        item = add_picture(store, f'{number}.png', picture(number))\n"
        "        changes = [Change(new(), new(), None, counts[n % 6], z=n) for n in range(1000)]\n"
        "        store.annotations.save(item, new(), changes, 'ada')\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    for name in ('coco', 'sa-1b'):\n"
        "        report = export_annotations(store, Path(sys.argv[1]) / 'cache/a.zip', name)\n"
        "        assert report.objects == 100_000\n"
        "        print(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "project")], check=True, capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    grown = [int(line.split()[1]) for line in run.stdout.splitlines()]
    assert len(grown) == 2
    assert max(grown) < 200_000, run.stdout  # kilobytes
