"""Benchmark of a project of 100,000 images: listing, filtering and opening, and saves by 20 concurrent users.

    python -m benchmarks.store [--database postgresql+psycopg://…] [--items 100000]

Prints the median and the 95th percentile of each in milliseconds.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segany.core.instance import Category
from segany.core.instances import Instances
from segany.core.rle import encode_masks
from segany.store import Change, ItemFilter, NewItem, PromptEvent, Store

SIZE_HW = (1200, 1800)
LABELS = tuple(Category(number, name) for number, name in enumerate(("car", "person", "tree"), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", default=None)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.create(Path(folder) / "project", database=options.database) as store,
    ):
        with timed("fill"):
            ids = fill(store, options.items)
        measure_reading(store, ids)
        measure_saving(store, ids)


@contextmanager
def timed(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{name:40} {time.perf_counter() - started:8.1f} s", flush=True)


def measure(name: str, work: Callable[[], object], times: int = 20) -> None:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    show(name, seconds)


def show(name: str, seconds: list[float]) -> None:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    print(f"{name:40} {p50:8.1f} {p95:8.1f} ms", flush=True)


def fill(store: Store, count: int) -> tuple[str, ...]:
    """Add images by reference. Every twentieth has five objects, every sixtieth is done."""
    photos = store.folder / "cache"
    photos.mkdir()
    store.items.add_root("photos", photos)
    ids: list[str] = []
    for start in range(0, count, 5000):
        names = [f"{number % 97:02}/IMG_{number:06}.jpg" for number in range(start, min(start + 5000, count))]
        ids += store.items.add(
            [
                NewItem(
                    name, hashlib.sha256(name.encode()).hexdigest(), SIZE_HW[1], SIZE_HW[0], "image/jpeg", 1,
                    root="photos", path=name,
                )
                for name in names
            ]
        )  # fmt: skip
    masks = [blob(60 * number, 50 * number) for number in range(5)]
    for index in range(0, count, 20):
        instances = Instances(masks, SIZE_HW, category_ids=[1, 2, 3, 1, 2], categories=LABELS)
        store.annotations.add_instances(ids[index], str(uuid.uuid4()), instances, "benchmark")
    for index in range(0, count, 60):
        store.items.set_state(ids[index], "done")
    return tuple(ids)


def blob(x: int, y: int) -> str:
    mask = np.zeros(SIZE_HW, dtype=bool)
    rows, columns = np.ogrid[: SIZE_HW[0], : SIZE_HW[1]]
    mask[(rows - y - 100) ** 2 + (columns - x - 100) ** 2 < 90**2] = True
    return encode_masks(mask)[0]["counts"]


def measure_reading(store: Store, ids: tuple[str, ...]) -> None:
    last = len(ids) - 500
    page = store.items.page
    measure("first 100", lambda: page(limit=100))
    measure("last 500", lambda: page(offset=last, limit=500))
    for order in ("name", "-updated_at"):
        measure(f"last 500 by {order}", lambda order=order: page(ItemFilter(order=order), last, 500))
    measure("of a state", lambda: page(ItemFilter(state="todo"), len(ids) // 2, 100))
    measure("of a label", lambda: page(ItemFilter(label_ids=(1,)), len(ids) // 40, 100))
    measure("of a label and a state", lambda: page(ItemFilter(state="done", label_ids=(1,)), 0, 100))
    measure("of three labels", lambda: page(ItemFilter(label_ids=(1, 2, 3)), len(ids) // 40, 100))
    measure("of a name", lambda: page(ItemFilter(text="img_0999"), 0, 100))
    measure("of a label by name", lambda: page(ItemFilter(label_ids=(1,), order="name"), 100, 100))
    measure("of no name", lambda: page(ItemFilter(text="nothing"), 0, 100))
    measure("counts by state", store.items.count_by_state)
    item = ids[len(ids) // 40 * 20]
    measure("open", lambda: (store.items.get(item), store.annotations.objects(item), store.items.place(item)))


def measure_saving(store: Store, ids: tuple[str, ...]) -> None:
    counts = blob(300, 200)

    def save(item: str, base: Change | None = None) -> Change:
        change = Change(
            base.object_id if base else str(uuid.uuid4()), str(uuid.uuid4()), base.revision_id if base else None,
            counts, label_id=1, prompt_events=(PromptEvent(str(uuid.uuid4()), 0, "point", {"xy": [1, 2]}),),
        )  # fmt: skip
        store.annotations.save(item, str(uuid.uuid4()), [change], "benchmark")
        return change

    thousand = Instances([blob(number % 1500, number % 1000) for number in range(1000)], SIZE_HW)
    with timed("1,000 objects at once"):
        store.annotations.add_instances(ids[1], str(uuid.uuid4()), thousand, "benchmark")
    measure("1,000 objects: all of them", lambda: store.annotations.objects(ids[1]))
    measure("1,000 objects: one more", lambda: save(ids[1]))

    def annotate(writer: int) -> list[float]:
        seconds, base = [], None
        for _ in range(20):
            started = time.perf_counter()
            base = save(ids[2 + writer], base)
            seconds.append(time.perf_counter() - started)
            time.sleep(0.2)  # a fast annotator saves a few times a second
        return seconds

    with ThreadPoolExecutor(20) as pool:
        show("20 people save at once", [second for part in pool.map(annotate, range(20)) for second in part])


if __name__ == "__main__":
    main()
