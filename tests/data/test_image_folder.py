from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data_for_tests import picture, save, save_json

from segany.core.errors import DataError
from segany.data import ImageFolder, ItemConfig, Loader, MaskFolder, make_item, open_dataset, open_images
from segany.data.loading import PackedItem

PLAIN = ItemConfig(side=16, needs_masks=False)


def test_all_images_below_without_masks(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "in/a.png", "in/deep/c.png")):
        save(tmp_path / name, picture(seed=number))
    (tmp_path / "notes.txt").write_text("no image")
    dataset = ImageFolder(tmp_path)
    assert dataset.names == ("b", "in/a", "in/deep/c")
    assert len(dataset) == 3
    annotated = dataset.read(1)
    assert (annotated.name, len(annotated.instances)) == ("in/a", 0)
    assert np.array_equal(annotated.image, picture(seed=1))


def test_folders_without_images_and_torn_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        ImageFolder(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no images"):
        ImageFolder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"a\.png"):
        ImageFolder(tmp_path).read(0)
    save(tmp_path / "a.bmp", picture())
    with pytest.raises(DataError, match="differ only in their endings"):
        ImageFolder(tmp_path)


def test_images_are_opened_as_what_they_are(tmp_path: Path) -> None:
    save(tmp_path / "plain" / "a.png", picture())
    assert isinstance(open_images(tmp_path / "plain"), ImageFolder)
    with pytest.raises(DataError, match="no known layout"):
        open_dataset(tmp_path / "plain")
    save(tmp_path / "masked" / "images" / "a.png", picture((6, 8)))
    save(tmp_path / "masked" / "masks" / "a.png", np.ones((6, 8), dtype=np.uint8))
    assert isinstance(open_images(tmp_path / "masked"), MaskFolder)  # or masks would be taken for images
    save_json(tmp_path / "broken" / "a.json", {})
    for wrong in ("broken", "missing"):
        with pytest.raises(DataError):
            open_images(tmp_path / wrong)


def test_items_without_masks(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", picture((6, 8), seed=number))
    dataset = ImageFolder(tmp_path)
    item = make_item(dataset.read(0), PLAIN, seed=5)
    assert item is not None
    assert (item.masks.shape, item.boxes_xyxy.shape, item.image.shape) == ((0, 16, 16), (0, 4), (12, 16, 3))
    assert PackedItem.of(item).unpacked().masks.shape == (0, 16, 16)
    assert make_item(dataset.read(0), ItemConfig(side=16), seed=5) is None
    with Loader(dataset, PLAIN, batch_size=3) as loader:
        (items,) = list(loader)
    assert sorted(item.name for item in items) == ["0", "1", "2"]
    assert loader.report.without_masks == ()


def test_masks_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture((6, 8)))
    save(tmp_path / "masks" / "a.png", np.ones((6, 8), dtype=np.uint8))
    item = make_item(MaskFolder(tmp_path).read(0), PLAIN, seed=0)
    assert item is not None
    assert len(item.masks) == 0
