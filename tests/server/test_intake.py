from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.serving import picture

from segany import CanceledError, ImageError
from segany.core.progress import Cancellation
from segany.server.intake import add_files, find_files
from segany.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "project") as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def add(store: Store, *paths: Path, copy: bool = False) -> tuple[int, dict[str, str]]:
    """Add what is at paths, and return how many images were added, and what was skipped and why."""
    counts: list[int] = []
    skipped: dict[str, str] = {}
    files = find_files(paths, store.folder)
    add_files(store, files, copy=copy, on_skipped=skipped.__setitem__, on_added=counts.append)
    return sum(counts), skipped


def test_hidden_and_other_files_do_not_count(store: Store, photos: Path) -> None:
    (photos / ".a.png").write_bytes(picture())
    (photos / "a.txt").write_text("text")
    (photos / "B.PNG").write_bytes(picture())
    assert add(store, photos) == (1, {})
    assert [item.name for item in store.items.iterate()] == ["B.PNG"]


def test_a_file_below_a_root_is_of_that_root(store: Store, photos: Path) -> None:
    (photos / "more").mkdir()
    (photos / "more" / "a.png").write_bytes(picture())
    assert add(store, photos)[0] == 1
    assert add(store, photos / "more" / "a.png")[0] == 0
    assert [root.path for root in store.items.roots()] == [photos]


def test_folders_of_one_name_are_two_roots(store: Store, tmp_path: Path) -> None:
    for name in ("x", "y"):
        folder = tmp_path / name / "photos"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(picture())
        assert add(store, folder) == (1, {})
    assert [root.name for root in store.items.roots()] == ["photos", "photos (2)"]


def test_a_link_out_of_the_folder_is_not_followed(store: Store, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    (photos / "link.png").symlink_to(tmp_path / "secret.png")
    (photos / "inside.png").write_bytes(picture(seed=1))
    (photos / "alias.png").symlink_to(photos / "inside.png")
    count, skipped = add(store, photos)
    assert count == 2
    assert list(skipped) == ["link.png"]
    assert "leads out of" in skipped["link.png"]


def test_unreadable_files_are_listed(store: Store, photos: Path) -> None:
    (photos / "cut.png").write_bytes(picture()[:50])
    (photos / "text.jpg").write_text("no image")
    (photos / "empty.png").touch()
    os.mkfifo(photos / "pipe.png")
    (photos / "good.png").write_bytes(picture())
    count, skipped = add(store, photos)
    assert count == 1
    assert set(skipped) == {"cut.png", "text.jpg", "empty.png", "pipe.png"}
    assert all(skipped.values())


@pytest.mark.parametrize("name", [b"\xff.png", ("x" * 240).encode() + b".png", "日本.png".encode(), b"a\nb.png"])
def test_odd_names(store: Store, photos: Path, name: bytes) -> None:
    path = Path(os.fsdecode(bytes(photos) + b"/" + name))
    path.write_bytes(picture())
    count, skipped = add(store, photos)
    if count:
        assert store.items.file(next(store.items.iterate()).id) == path
    else:
        assert list(skipped) == ["\\xff.png".replace("\\xff", "\\udcff")]


def test_copies(store: Store, photos: Path) -> None:
    (photos / "a.png").write_bytes(picture())
    assert add(store, photos, copy=True) == (1, {})
    assert add(store, photos, copy=True) == (0, {})
    (photos / "a.png").unlink()
    (item,) = store.items.iterate()
    assert store.items.file(item.id).read_bytes() == picture()
    assert store.items.roots() == ()


def test_nothing_there(photos: Path, tmp_path: Path) -> None:
    assert find_files([photos], tmp_path / "project") == []
    with pytest.raises(ImageError, match="no file"):
        find_files([photos / "a.png"], tmp_path / "project")


def test_images_of_the_project_itself_do_not_count(photos: Path) -> None:
    (photos / "a.png").write_bytes(picture())
    with Store.create(photos / "project") as store:
        (store.folder / "cache").mkdir()
        (store.folder / "cache" / "thumbnail.png").write_bytes(picture(seed=1))
        assert add(store, photos) == (1, {})
        assert [item.name for item in store.items.iterate()] == ["a.png"]


def test_moved_and_renamed_images_are_found_by_content(store: Store, photos: Path, tmp_path: Path) -> None:
    for index, name in enumerate(("a.png", "b.png", "c.png", "gone.png")):
        (photos / name).write_bytes(picture(seed=index))
    assert add(store, photos)[0] == 4
    a, b, c, gone = store.items.iterate()
    elsewhere = photos.rename(tmp_path / "elsewhere")
    (elsewhere / "b.png").rename(elsewhere / "renamed.png")
    (elsewhere / "gone.png").unlink()
    (elsewhere / "new.png").write_bytes(picture(seed=4))
    (elsewhere / "twin.png").write_bytes(picture(seed=2))  # of c.png, which is there too
    found: list[int] = []
    added: list[int] = []
    files = find_files([elsewhere], store.folder)
    add_files(store, files, on_skipped=lambda *_: None, on_added=added.append, on_found=found.append)
    assert (found, added) == ([3], [2])
    assert store.items.file(a.id) == elsewhere / "a.png"
    assert store.items.file(b.id) == elsewhere / "renamed.png"
    assert store.items.file(c.id).read_bytes() == picture(seed=2)
    with pytest.raises(ImageError, match="start segany serve with the folder"):
        store.items.file(gone.id)
    assert add(store, elsewhere) == (0, {})


def test_many_and_an_end_on_the_way(store: Store, photos: Path) -> None:
    for number in range(150):
        (photos / f"{number}.png").write_bytes(picture(4, 4, seed=number))
    cancellation = Cancellation()
    files = find_files([photos], store.folder)
    with pytest.raises(CanceledError):
        add_files(
            store, files, on_skipped=print, on_added=lambda _count: cancellation.cancel(), cancellation=cancellation
        )
    assert 0 < store.items.page(limit=0).total < 150
    add_files(store, files, on_skipped=print, on_added=lambda _count: None)
    assert store.items.page(limit=0).total == 150
