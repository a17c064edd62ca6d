"""The parts of the benchmark of `segany serve` without a browser: a large project, and many who save at once."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.serve_rows import LARGE_PROJECT, SAVE, Row
from benchmarks.served import SIZE_HW, ServerProcess
from benchmarks.store import blob, fill
from segany import Client
from segany.server import schemas
from segany.store import ItemFilter, NewItem, Store

ITEMS = 100_000

REPEATS = 20

ANNOTATORS = 20

ROUNDS = 25

REPEATED = 5
"""Every fifth batch is sent twice, as the page does when it has not seen the answer."""

Calls = dict[str, Callable[[], object]]


def measure_large_project(folder: Path) -> list[Row]:
    """List, filter and open, in the store and by the API of a server with one connection; by name, as the page does."""
    with Store.create(folder / "project") as store:
        ids = fill(store, ITEMS)
        middle, last, opened = ITEMS // 2, ITEMS - 500, ids[ITEMS // 40 * 20]
        page = store.items.page
        rows = [
            _row("list, store", {
                "first 100 by name": lambda: page(ItemFilter(order="name")),
                "middle 100 by name": lambda: page(ItemFilter(order="name"), middle, 100),
                "last 500 by name": lambda: page(ItemFilter(order="name"), last, 500),
                "last 500 by time": lambda: page(ItemFilter(order="-updated_at"), last, 500),
                "counts by state": store.items.count_by_state,
            }),
            _row("filter, store", {
                "a state": lambda: page(ItemFilter(state="todo", order="name"), middle, 100),
                "a label": lambda: page(ItemFilter(label_ids=(1,), order="name"), ITEMS // 40, 100),
                "a label and a state": lambda: page(ItemFilter(state="done", label_ids=(1,), order="name")),
                "a part of names": lambda: page(ItemFilter(text="img_0999", order="name")),
                "a name there is not": lambda: page(ItemFilter(text="nothing", order="name")),
            }),
            _row("open, store", {
                "": lambda: (store.items.get(opened), store.annotations.objects(opened), store.items.place(opened)),
            }),
        ]  # fmt: skip
    with ServerProcess(folder / "project", "--model", "none") as server, Client(server.address()) as client:

        def get(path: str, **query: object) -> Callable[[], object]:
            return lambda: client.http.get(path, params=query).raise_for_status().content  # type: ignore[arg-type]

        items = "/api/items"
        return [
            *rows,
            _row("list, API", {
                "first 100 by name": get(items),
                "middle 100 by name": get(items, sort="name", offset=middle),
                "last 500 by name": get(items, sort="name", offset=last, limit=500),
                "last 500 by time": get(items, sort="-updated_at", offset=last, limit=500),
                "project and counts": get("/api/project"),
            }),
            _row("filter, API", {
                "a state": get(items, state="todo", offset=middle),
                "a label": get(items, label=1, offset=ITEMS // 40),
                "a label and a state": get(items, label=1, state="done"),
                "a part of names": get(items, q="img_0999"),
                "a name there is not": get(items, q="nothing"),
            }),
            _row("open, API", {"": get(f"{items}/{opened}")}),
        ]  # fmt: skip


def _row(title: str, calls: Calls) -> Row:
    """Time some calls, each as often as the others. The row notes the slowest one."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(REPEATS):
            started = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - started))
    slowest = max(times, key=lambda name: median(times[name]))
    note = f"slowest: {slowest}, {median(times[slowest]):.0f} ms" if len(calls) > 1 else ""
    return Row.of(f"{ITEMS:,} images: {title}", LARGE_PROJECT, [one for many in times.values() for one in many], note)


def measure_saving_at_once(folder: Path) -> list[Row]:
    """Let annotators, two to an image, each revise an object again and again, all at the same moments."""
    with Store.create(folder / "project") as store:
        (folder / "photos").mkdir()
        store.items.add_root("photos", folder / "photos")
        names = [f"{number}.jpg" for number in range(ANNOTATORS // 2)]
        items = store.items.add(
            [
                NewItem(name, hashlib.sha256(name.encode()).hexdigest(), SIZE_HW[1], SIZE_HW[0], "image/jpeg", 1,
                        root="photos", path=name)
                for name in names
            ]
        )  # fmt: skip
    annotators = [_Annotator(items[number // 2], number) for number in range(ANNOTATORS)]
    together = threading.Barrier(ANNOTATORS)
    with ServerProcess(folder / "project", "--model", "none") as server, ThreadPoolExecutor(ANNOTATORS) as pool:
        clients = [Client(server.address()) for _ in annotators]
        work = [
            pool.submit(annotator.work, client, together) for annotator, client in zip(annotators, clients, strict=True)
        ]
        times = [one for done in work for one in done.result()]
        for client in clients:
            client.close()
    lost = doubled = 0
    with Store.open(folder / "project") as store:
        for annotator in annotators:
            found = Counter(
                revision.state.revision_id for revision in store.annotations.history(annotator.item, annotator.object)
            )
            lost += len(set(annotator.revisions) - set(found))
            doubled += sum(found.values()) - len(set(annotator.revisions) & set(found))
        objects = sum(len(store.annotations.objects(item)) for item in items)
    doubled += max(0, objects - ANNOTATORS)
    note = f"lost {lost}, doubled {doubled}, of {ANNOTATORS * ROUNDS} revisions; a fifth sent twice"
    return [Row.of(f"{ANNOTATORS} annotators save at once", SAVE, times, note)]


class _Annotator:
    """Somebody with a client, who revises one object.

    Attributes:
        revisions: that the server has confirmed.
    """

    def __init__(self, item: str, number: int) -> None:
        self.item, self.object = item, str(uuid.uuid4())
        self.revisions = [str(uuid.uuid4()) for _ in range(ROUNDS)]
        bases = [None, *self.revisions[:-1]]
        self._batches = [
            self._batch(revision, base, blob(60 * number, 30 * round_))
            for round_, (revision, base) in enumerate(zip(self.revisions, bases, strict=True))
        ]

    def work(self, client: Client, together: threading.Barrier) -> list[float]:
        """Save in each round when all others do; return how long each took."""
        times = []
        for number, body in enumerate(self._batches):
            together.wait()
            started = time.perf_counter()
            answer = self._save(client, body)
            times.append(1000 * (time.perf_counter() - started))
            if [result.status for result in answer.results] != ["saved"] or answer.conflicts:
                raise RuntimeError(f"Not saved: {answer}")
            if number % REPEATED == 0 and [result.status for result in self._save(client, body).results] != ["known"]:
                raise RuntimeError("A batch that was sent twice is not known.")
            time.sleep(0.1)
        return times

    def _save(self, client: Client, body: bytes) -> schemas.SaveAnswer:
        path, kind = f"/api/items/{self.item}/revisions", {"Content-Type": "application/json"}
        response = client.http.post(path, content=body, headers=kind).raise_for_status()
        return schemas.SaveAnswer.model_validate_json(response.content)

    def _batch(self, revision: str, base: str | None, counts: str) -> bytes:
        event = schemas.PromptEvent(
            id=str(uuid.uuid4()), sequence=0, kind="brush", payload={"radius": 8}, model_version=None, candidate=None,
            latency_ms=None,
        )  # fmt: skip
        change = schemas.Change(
            object=self.object, revision=revision, base=base, label_id=None, attributes={}, counts=counts, z=1.0,
            source="manual", deleted=False, active_ms=900.0, prompt_events=[event],
        )  # fmt: skip
        return schemas.Batch(batch=str(uuid.uuid4()), changes=[change]).model_dump_json().encode()
