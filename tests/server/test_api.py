"""The API as the page uses it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.live_for_tests import model_ref
from tests.server.serving import Served, picture, served, until
from tests.store_for_tests import square

from segany.core.errors import OutputError
from segany.core.instances import Instances
from segany.core.progress import ProgressCallback, report
from segany.core.rle import encode_masks
from segany.server.state import ServerState
from segany.store import Job, Store


def new_id() -> str:
    return str(uuid.uuid4())


def upload(server: Served, *names: str) -> list[dict[str, Any]]:
    files = [("files", (name, picture(seed=index), "image/png")) for index, name in enumerate(names)]
    answer = server.http.post("/api/items", files=files)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def change(object_id: str | None = None, base: str | None = None, **values: Any) -> dict[str, Any]:
    """A change as the page sends it."""
    return {
        "object": object_id or new_id(), "revision": new_id(), "base": base, "label_id": None, "attributes": {},
        "counts": square(2, 3), "z": 0, "source": "manual", "deleted": False, "active_ms": 12.5,
        "prompt_events": [], **values,
    }  # fmt: skip


def save(http: httpx.Client, item: str, *changes: dict[str, Any], batch: str | None = None) -> httpx.Response:
    body = {"batch": batch or new_id(), "changes": list(changes)}
    return http.post(f"/api/items/{item}/revisions", json=body)


LABELS = [
    {"id": 1, "name": "cat", "color": "#f2994a", "hotkey": "1", "archived": False, "attributes": []},
    {
        "id": 2, "name": "person", "color": "#4f8cff", "archived": False,
        "attributes": [{"name": "pose", "type": "choice", "choices": ["a", "b"]}, {"name": "age", "type": "number"}],
    },
]  # fmt: skip


# The project.


def test_project(any_server: Served) -> None:
    project = any_server.http.get("/api/project").json()
    assert project["name"] == "Cells"
    assert project["counts"] == {"todo": 0, "in_progress": 0, "done": 0, "skipped": 0}
    assert project["labels"] == []
    assert set(project["model"]) == {"name", "state", "message", "preprocessing", "decoder"}
    changed = any_server.http.patch("/api/project", json={"name": "Kitchen", "settings": {"a": [1, None]}}).json()
    assert (changed["name"], changed["settings"]) == ("Kitchen", {"a": [1, None]})


def test_labels_go_back_and_forth(any_server: Served) -> None:
    version = any_server.http.get("/api/project").json()["label_version"]
    answer = any_server.http.put("/api/project/labels", json={"base_version": version, "labels": LABELS})
    assert answer.status_code == 200, answer.text
    labels = answer.json()["labels"]
    assert [label["name"] for label in labels] == ["cat", "person"]
    again = any_server.http.put("/api/project/labels", json={"base_version": version + 1, "labels": labels})
    assert again.json()["labels"] == labels
    stale = any_server.http.put("/api/project/labels", json={"base_version": version, "labels": []})
    assert stale.status_code == 409
    assert stale.json()["project"]["labels"] == labels
    assert stale.json()["message"]


def test_label_in_use_is_not_removed(any_server: Served) -> None:
    any_server.http.put("/api/project/labels", json={"base_version": 1, "labels": LABELS})
    (item,) = upload(any_server, "a.png")
    assert save(any_server.http, item["id"], change(label_id=1)).status_code == 200
    answer = any_server.http.put("/api/project/labels", json={"base_version": 2, "labels": LABELS[1:]})
    assert answer.status_code == 422
    assert "Archive it" in answer.json()["message"]


# Items.


def test_upload_and_list(any_server: Served) -> None:
    items = upload(any_server, "b10.png", "b9.png", "a.png")
    assert [(item["width"], item["height"], item["state"]) for item in items] == [(30, 20, "todo")] * 3
    page = any_server.http.get("/api/items", params={"offset": 1, "limit": 2}).json()
    assert page["total"] == 3
    assert [item["name"] for item in page["items"]] == ["b9.png", "b10.png"]
    assert [i["name"] for i in any_server.http.get("/api/items?q=B1").json()["items"]] == ["b10.png"]
    backward = any_server.http.get("/api/items?sort=-name").json()["items"]
    assert [item["name"] for item in backward] == ["b10.png", "b9.png", "a.png"]


def test_upload_lists_what_it_skips(any_server: Served) -> None:
    files = [("files", ("notes.txt", b"hello")), ("files", ("a.png", picture()))]
    answer = any_server.http.post("/api/items", files=files).json()
    assert [item["name"] for item in answer["items"]] == ["a.png"]
    assert answer["skipped"][0]["name"] == "notes.txt"
    assert "not an image" in answer["skipped"][0]["message"]


def test_upload_of_more_files_than_a_request_may_have(any_server: Served) -> None:
    files = [("files", ("a.png", b"")) for _ in range(1001)]
    assert len(any_server.http.post("/api/items", files=files[:1000]).json()["skipped"]) == 1000
    answer = any_server.http.post("/api/items", files=files)
    assert answer.status_code == 400
    assert "1000" in answer.json()["message"]


def test_the_same_upload_again_is_the_same_item(any_server: Served) -> None:
    assert upload(any_server, "a.png")[0]["id"] == upload(any_server, "a.png")[0]["id"]
    assert any_server.http.get("/api/items").json()["total"] == 1


def test_item_with_neighbors(any_server: Served) -> None:
    first, second = upload(any_server, "a.png", "b.png")
    item = any_server.http.get(f"/api/items/{second['id']}").json()
    assert (item["position"], item["total"], item["previous_id"], item["next_id"]) == (1, 2, first["id"], None)
    assert item["objects"] == []
    done = any_server.http.patch(f"/api/items/{first['id']}", json={"state": "done"}).json()
    assert (done["state"], done["objects"]) == ("done", 0)
    assert any_server.http.get("/api/items?state=done").json()["total"] == 1
    among = any_server.http.get(f"/api/items/{second['id']}", params={"state": "done"}).json()
    assert (among["total"], among["previous_id"]) == (1, first["id"])


@pytest.mark.parametrize("path", ["", "/image", "/thumbnail", "/embedding", "/proposals"])
def test_unknown_item(server: Served, path: str) -> None:
    answer = server.http.get(f"/api/items/{new_id()}{path}")
    assert answer.status_code == 404
    assert "no item" in answer.json()["message"]


# Saving.


def test_save_and_read(any_server: Served) -> None:
    (item,) = upload(any_server, "a.png")
    event = {
        "id": new_id(), "sequence": 0, "kind": "point", "payload": {"xy": [3.5, 4], "label": 1},
        "model_version": "mobile_sam@1", "candidate": 0, "latency_ms": 20,
    }  # fmt: skip
    made = change(source="assisted", prompt_events=[event], attributes={"age": 3, "note": "x"})
    answer = save(any_server.http, item["id"], made)
    assert answer.status_code == 200, answer.text
    saved = {"object": made["object"], "revision": made["revision"], "status": "saved"}
    assert answer.json() == {"results": [saved], "conflicts": []}
    whole = any_server.http.get(f"/api/items/{item['id']}").json()
    (state,) = whole["objects"]
    assert whole["state"] == "in_progress"
    assert (state["id"], state["revision"], state["parent"]) == (made["object"], made["revision"], None)
    assert (state["box_xyxy"], state["area"], state["counts"]) == ([2, 3, 6, 7], 16, made["counts"])
    assert (state["author"], state["model_version"], state["attributes"]) == ("ada", "mobile_sam@1", made["attributes"])
    assert any_server.store.annotations.replay(made["revision"]).revisions[0].active_ms == 12


def test_the_same_batch_again_changes_nothing(any_server: Served) -> None:
    (item,) = upload(any_server, "a.png")
    made, batch = change(), new_id()
    first = save(any_server.http, item["id"], made, batch=batch)
    again = save(any_server.http, item["id"], made, batch=batch)
    assert (first.json()["results"][0]["status"], again.json()["results"][0]["status"]) == ("saved", "known")
    assert len(any_server.store.annotations.history(item["id"], made["object"])) == 1


def test_a_stale_base_is_a_conflict_and_both_are_kept(any_server: Served) -> None:
    (item,) = upload(any_server, "a.png")
    first = change()
    save(any_server.http, item["id"], first)
    mine = change(first["object"], first["revision"], counts=square(5, 5))
    theirs = change(first["object"], first["revision"], counts=square(9, 9))
    other = change()
    assert save(any_server.http, item["id"], theirs).status_code == 200
    answer = save(any_server.http, item["id"], mine, other)
    assert answer.status_code == 409
    body = answer.json()
    assert [result["object"] for result in body["results"]] == [other["object"]]
    (conflict,) = body["conflicts"]
    assert (conflict["object"], conflict["yours"]) == (first["object"], mine["revision"])
    assert conflict["theirs"]["counts"] == theirs["counts"]
    history = any_server.store.annotations.history(item["id"], first["object"])
    assert [step.state.counts for step in history] == [first["counts"], theirs["counts"], mine["counts"]]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"counts": "nonsense"}, "mask"),
        ({"counts": square(2, 3)[:-1]}, "mask"),
        ({"label_id": 77}, "label"),
        ({"object": "1"}, "object"),
        ({"z": "1"}, "z"),
        ({"source": "human"}, "source"),
        ({"surprise": 1}, "surprise"),
        ({"attributes": {"a": {"b": 1}}}, "attributes"),
        ({"active_ms": -1}, "active_ms"),
    ],
)
def test_a_wrong_change_saves_nothing(any_server: Served, wrong: dict[str, Any], word: str) -> None:
    (item,) = upload(any_server, "a.png")
    answer = save(any_server.http, item["id"], change(), change(**wrong))
    assert answer.status_code == 422
    assert word in answer.json()["message"]
    assert any_server.http.get(f"/api/items/{item['id']}").json()["objects"] == []


def test_a_full_disk_is_507_in_words(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = upload(server, "a.png")

    def fail(*_: object) -> None:
        raise OutputError("project.sqlite could not be written: database or disk is full. Free some space.")

    monkeypatch.setattr(server.store.annotations, "save", fail)
    answer = save(server.http, item["id"], change())
    assert answer.status_code == 507
    assert "Free some space" in answer.json()["message"]


def test_an_upload_that_cannot_be_spooled_is_507(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(server.store.folder / "nothing"))
    answer = server.http.post("/api/items", files={"files": ("a.png", b"x" * (3 << 20))})
    assert answer.status_code == 507
    assert "Free some space" in answer.json()["message"]


def test_twenty_annotators_at_once(any_server: Served) -> None:
    """Each draws in an image that all share, and changes an object that all share: nothing is lost or doubled."""
    annotators, rounds = 20, 3
    (item,) = upload(any_server, "a.png")
    shared = change()
    save(any_server.http, item["id"], shared)

    def annotate(number: int) -> tuple[list[str], list[str], list[str]]:
        accepted, winners, losers = [], [], []
        with httpx.Client(base_url=any_server.root, timeout=60, trust_env=False) as http:
            csrf = http.post("/api/session", json={"token": any_server.sessions.new_token()}).json()["csrf"]
            http.headers["X-Segany-CSRF"] = csrf
            for turn in range(rounds):
                own = change(counts=square(number, turn))
                batch = new_id()
                for _ in range(2):  # the second as if the first answer had been lost
                    assert save(http, item["id"], own, batch=batch).status_code == 200
                accepted.append(own["object"])
                objects = http.get(f"/api/items/{item['id']}").json()["objects"]
                base = next(state["revision"] for state in objects if state["id"] == shared["object"])
                mine = change(shared["object"], base, counts=square(number, turn))
                answer = save(http, item["id"], mine)
                assert answer.status_code in (200, 409)
                (winners if answer.status_code == 200 else losers).append(mine["revision"])
        return accepted, winners, losers

    with ThreadPoolExecutor(annotators) as pool:
        parts = list(pool.map(annotate, range(annotators)))
    accepted, winners, losers = ([name for part in parts for name in part[index]] for index in range(3))
    objects = any_server.http.get(f"/api/items/{item['id']}").json()["objects"]
    assert sorted(state["id"] for state in objects) == sorted([*accepted, shared["object"]])
    history = any_server.store.annotations.history(item["id"], shared["object"])
    known = {flag: {step.state.revision_id for step in history if step.conflicting is flag} for flag in (True, False)}
    assert known == {True: set(losers), False: {shared["revision"], *winners}}
    assert len(history) == 1 + annotators * rounds
    assert any_server.http.get("/api/items").json()["items"][0]["objects"] == 1 + annotators * rounds


# Proposals and jobs.


def test_proposals(any_server: Served) -> None:
    (item,) = upload(any_server, "a.png")
    answer = any_server.http.get(f"/api/items/{item['id']}/proposals")
    assert (answer.status_code, answer.json()) == (200, None)
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 2:6, 3:9] = masks[1, 1:2, 1:2] = True
    found = Instances(
        [rle["counts"] for rle in encode_masks(masks)], (20, 30), sources=["automatic"] * 2,
        scores=[0.9, 0.8],
        columns={"predicted_iou": np.float32([0.9, 0.8]), "stability_score": np.float32([0.95, 0.7])},
    )  # fmt: skip
    any_server.store.proposals.put(item["id"], "mobile_sam@1", found)
    first, second = any_server.http.get(f"/api/items/{item['id']}/proposals").json()
    assert (first["box_xyxy"], first["area"], second["area"]) == ([3, 2, 9, 6], 24, 1)
    assert first["predicted_iou"] == pytest.approx(0.9)
    assert second["stability_score"] == pytest.approx(0.7)


def counting(_state: ServerState) -> Callable[[Job, ProgressCallback], Any]:
    def count(job: Job, progress: ProgressCallback) -> Any:
        for done in range(3):
            report(progress, "counting", done + 1, 3, "items")
        return {"items": 3, "objects": 0, "format": job.arguments["format"]}

    return count


def waiting(_state: ServerState) -> Callable[[Job, ProgressCallback], Any]:
    def wait(_job: Job, progress: ProgressCallback) -> Any:
        while True:
            report(progress, "waiting", 1, None, "items")
            time.sleep(0.01)

    return wait


@pytest.fixture
def working(database_url: str | None, start: Callable[..., Served]) -> Served:
    return start("project", database_url, kinds={"export": counting, "proposals": waiting})


def test_job_runs_and_is_told_of(working: Served) -> None:
    job = working.http.post("/api/exports", json={"format": "coco", "filter": {"state": "done"}}).json()
    assert (job["kind"], job["state"], job["result"]) == ("export", "queued", None)
    done = until(lambda: (known := working.http.get(f"/api/jobs/{job['id']}").json())["state"] == "done" and known)
    assert (done["done"], done["total"], done["unit"]) == (3, 3, "items")
    assert done["result"] == {"items": 3, "objects": 0, "format": "coco"}
    assert [known["id"] for known in working.http.get("/api/jobs").json()] == [job["id"]]


def test_job_is_canceled_and_not_started_twice(working: Served) -> None:
    (item,) = upload(working, "a.png")
    path = f"/api/items/{item['id']}/proposals"
    job = working.http.post(path).json()
    assert (job["kind"], job["item"]) == ("proposals", item["id"])
    assert working.http.post(path).json()["id"] == job["id"]
    working.http.post(f"/api/jobs/{job['id']}/cancel")
    until(lambda: working.http.get(f"/api/jobs/{job['id']}").json()["state"] == "canceled")
    assert working.http.post(path).json()["id"] != job["id"]


def test_proposals_of_no_item(working: Served) -> None:
    assert working.http.post(f"/api/items/{new_id()}/proposals").status_code == 404


def test_export_that_is_not_done_has_no_file(working: Served) -> None:
    job = working.http.post("/api/exports", json={"format": "coco"}).json()
    assert working.http.get(f"/api/exports/{job['id']}/file").status_code == 404
    assert working.http.get(f"/api/exports/{new_id()}/file").status_code == 404


def test_jobs_of_a_killed_server_go_on(tmp_path: Path, page: Path) -> None:
    with Store.create(tmp_path / "project") as store:
        job = store.jobs.submit("export", {"format": "coco"})
        assert store.jobs.claim(["export"], 1000) is not None  # by a process that was killed
        with served(store, page, kinds={"export": counting}) as server:
            until(lambda: server.http.get(f"/api/jobs/{job.id}").json()["state"] == "done")
        assert store.jobs.get(job.id).attempts == 2


# Embeddings.


def test_an_embedding_is_there_or_it_is_said_why_not(tmp_path: Path, page: Path) -> None:
    with (
        Store.create(tmp_path / "project") as store,
        served(store, page, model_ref(tmp_path)) as server,
    ):
        good, bad = upload(server, "a.png", "b.png")
        embeddings, may_read = server.state.model_host.embeddings, threading.Event()

        def ask(item: dict[str, Any]) -> httpx.Response:
            return server.http.get(f"/api/items/{item['id']}/embedding")

        def find() -> Path:
            may_read.wait()
            return store.items.file(good["id"])

        assert ask(good).status_code == 404
        assert "Open the image first" in ask(good).json()["message"]
        request = embeddings.request(store.items.get(good["id"]).sha256, find)
        assert ask(good).status_code == 202
        assert "being computed" in ask(good).json()["message"]
        may_read.set()
        assert request.result(30).size_hw == (20, 30)
        assert ask(good).status_code == 200

        file = store.items.file(bad["id"])
        data = file.read_bytes()
        file.unlink()
        failed = embeddings.request(store.items.get(bad["id"]).sha256, lambda: store.items.file(bad["id"]))
        assert failed.exception(30) is not None
        assert ask(bad).status_code == 422
        assert "missing" in ask(bad).json()["message"]
        file.write_bytes(data)
        assert embeddings.request(store.items.get(bad["id"]).sha256, lambda: file).result(30)
        assert ask(bad).status_code == 200


def test_there_are_no_embeddings_without_a_model(server: Served) -> None:
    (item,) = upload(server, "a.png")
    until(lambda: server.state.model_host.description()["state"] == "failed")
    answer = server.http.get(f"/api/items/{item['id']}/embedding")
    assert answer.status_code == 409
    assert "None was chosen" in answer.json()["message"]
