"""Results of many workers as proposals of a project."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.store_for_tests import HEIGHT, WIDTH, add_item

from segany import DataError, Instances
from segany.jobs.ingest import Ingested, ingest
from segany.jobs.parquet import ImageMasks, write_part
from segany.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project") as opened:
        yield opened


def row(data: bytes, masks: int, size_hw: tuple[int, int] = (HEIGHT, WIDTH), name: str = "a.png") -> ImageMasks:
    stack = np.zeros((masks, *size_hw), dtype=bool)
    stack[:, :3, :3] = True
    instances = Instances.from_masks(stack, scores=[0.5] * masks, sources="automatic")
    return ImageMasks(f"s3://b/{name}", "", hashlib.sha256(data).hexdigest(), "m", "{}", 1.0, time.time(), instances)


def test_ingesting_finds_items_by_content_and_replaces_what_was_there(store: Store, tmp_path: Path) -> None:
    names = ("a.png", "copy of a.png")
    items = {store.items.get(add_item(store, name, b"same file")).id for name in names}
    for count in (2, 3):
        rows = [row(b"same file", count), row(b"elsewhere", 1, name="x.png")]
        write_part(str(tmp_path / str(count)), rows, [str(count)])
    for count in (2, 3, 3):
        assert ingest(store, str(tmp_path / str(count))) == Ingested(len(items), 1)
        assert {len(store.proposals.get(item, "m").instances) for item in items} == {count}


def test_masks_of_another_size_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    add_item(store, "a.png", b"file")
    write_part(str(tmp_path / "out"), [row(b"file", 1, (5, 5))], ["a"])
    with pytest.raises(DataError, match=r"s3://b/a.png has masks of \(5, 5\)"):
        ingest(store, str(tmp_path / "out"))
