from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.serving import Served, picture
from tests.store_for_tests import square

from segany import Client, ConflictError, DataError, NotFoundError, StoreError
from segany.core.progress import ProgressEvent
from segany.server.schemas import Change, Job, Label


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server.address) as entered:
        yield entered


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.png", "b.png", "notes.txt")]
    for index, path in enumerate(paths):
        path.write_bytes(picture(seed=index) if path.suffix == ".png" else b"notes")
    return paths


def change(**values: Any) -> Change:
    new = {"object": str(uuid.uuid4()), "revision": str(uuid.uuid4()), "base": None, "label_id": None}
    rest = {
        "attributes": {}, "counts": square(2, 3), "z": 0.0, "source": "manual", "deleted": False, "active_ms": 0.0,
        "prompt_events": [],
    }  # fmt: skip
    return Change.model_validate({**new, **rest, **values})


CAT = Label(id=1, name="cat", color="#f2994a", archived=False, attributes=[])


def test_from_images_to_an_export_and_back(client: Client, images: list[Path], tmp_path: Path) -> None:
    uploaded = client.upload(images)
    assert [item.name for item in uploaded.items] == ["a.png", "b.png"]
    assert [skipped.name for skipped in uploaded.skipped] == ["notes.txt"]
    project = client.project()
    assert client.replace_labels(project.label_version, [CAT]).labels == [CAT]
    item = uploaded.items[0]
    made = change(label_id=1)
    assert [saved.status for saved in client.save(item.id, [made]).results] == ["saved"]
    assert client.item(item.id).objects[0].counts == made.counts
    assert client.set_state(item.id, "done").state == "done"
    assert [known.id for known in client.items(state="done")] == [item.id]
    assert [known.id for known in client.items(label=1)] == [item.id]
    assert client.image(item.id) == images[0].read_bytes()
    seen: list[Job] = []
    client.wait(client.start_export("coco"), seen.append)
    assert seen[-1].state == "done"
    file = client.export("coco", tmp_path / "out", state="done")
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".json"))
        coco = json.loads(archive.read(name))
    assert [(one["file_name"], one["width"]) for one in coco["images"]] == [("a.png", 30)]
    assert coco["annotations"][0]["segmentation"] == {"size": [20, 30], "counts": made.counts}
    job = client.wait(client.start_import("coco", [file]))
    assert job.result is not None
    assert (job.result["items"], job.result["objects"]) == (1, 1)
    assert [state.counts for state in client.item(item.id).objects] == [made.counts], "it was there already"
    assert client.jobs()[0].id == job.id


def test_conflict(client: Client, images: list[Path]) -> None:
    item = client.upload(images[:1]).items[0]
    first = change()
    client.save(item.id, [first])
    second = change(object=first.object, base=first.revision)
    third = change(object=first.object, base=first.revision)
    batch = str(uuid.uuid4())
    assert client.save(item.id, [second]).conflicts == []
    answer = client.save(item.id, [third], batch)
    assert [conflict.theirs.revision for conflict in answer.conflicts] == [second.revision]
    assert client.save(item.id, [third], batch) == answer


def test_import_that_fails_says_why(client: Client, images: list[Path]) -> None:
    with pytest.raises(DataError, match="import was failed"):
        client.wait(client.start_import("coco", images[2:]))


def test_errors_are_those_of_the_library(client: Client, server: Served, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no item"):
        client.item(str(uuid.uuid4()))
    with pytest.raises(ConflictError, match="Load them again"):
        client.replace_labels(7, [])
    with pytest.raises(DataError, match="nothing"):
        client.upload([tmp_path / "nothing.png"])
    with pytest.raises(StoreError, match="not valid"):
        Client(f"{server.root}/#token=used")
    with pytest.raises(StoreError, match="was not reached"):
        Client("http://127.0.0.1:1/#token=x")


def test_more_files_than_a_request_may_have(client: Client, images: list[Path], tmp_path: Path) -> None:
    client.upload(images[:1])
    (tmp_path / "labels").mkdir()
    shapes = [{"label": "cat", "shape_type": "rectangle", "points": [[2, 3], [9, 8]]}]
    for number in range(1100):
        facts = {"imagePath": "a.png" if number == 1050 else "none.png", "imageHeight": 20, "imageWidth": 30}
        (tmp_path / "labels" / f"{number}.json").write_text(json.dumps({"shapes": shapes, **facts}))
    files = sorted((tmp_path / "labels").iterdir())
    seen: list[ProgressEvent] = []
    assert len(client.upload(files, seen.append).skipped) == 1100
    assert [(event.done, event.total) for event in (seen[0], seen[-1])] == [(200, 1100), (1100, 1100)]
    job = client.wait(client.start_import("labelme", files))
    assert job.result is not None
    assert (job.result["items"], job.result["objects"]) == (1, 1)


def test_uploads_are_split_by_their_bytes_too(
    client: Client, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segany.client.PART_BYTES", sum(path.stat().st_size for path in images[:2]))
    seen: list[ProgressEvent] = []
    assert len(client.upload(images, seen.append).items) == 2
    assert [event.done for event in seen] == [2, 3]
    monkeypatch.setattr("segany.client.PART_BYTES", 1)
    assert len(client.upload(images, seen.append).items) == 2
    assert [event.done for event in seen[2:]] == [1, 2, 3]
