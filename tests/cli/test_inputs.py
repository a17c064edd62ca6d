"""Which images paths on the command line stand for."""

from pathlib import Path

import pytest

from segany.cli.inputs import check_out_folder, find_images
from segany.core.errors import ImageError, OutputError

OUT = Path("out")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with a few files."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/c.png", "deep/d.webp", "[odd].png", "plain"):
        path = Path("photos") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("photos/folder.png").mkdir()


def found(*paths: str, out: Path = OUT) -> list[str]:
    return [path.as_posix() for path in find_images([Path(path) for path in paths], out)]


def test_folders_give_what_is_named_like_an_image() -> None:
    assert found("photos") == ["photos/[odd].png", "photos/a.png", "photos/b.JPG"]


def test_files_are_images_whatever_their_names() -> None:
    assert found("photos/plain", "photos/[odd].png") == ["photos/plain", "photos/[odd].png"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("photos/*.png", ["[odd].png", "a.png"]),
        ("photos/*", ["[odd].png", "a.png", "b.JPG"]),
        ("photos/**/*.png", ["[odd].png", "a.png", "deep/c.png"]),
        ("ph*s/deep/?.*", ["deep/c.png", "deep/d.webp"]),
    ],
)
def test_a_pattern_finds_relative_and_absolute_paths(pattern: str, names: list[str]) -> None:
    assert found(pattern) == [f"photos/{name}" for name in names]
    assert found(str(Path.cwd() / pattern)) == [str(Path.cwd() / "photos" / name) for name in names]


def test_an_image_counts_once() -> None:
    assert found("photos/a.png", "photos", str(Path.cwd() / "photos" / "b.JPG")) == [
        "photos/a.png", "photos/[odd].png", "photos/b.JPG",
    ]  # fmt: skip


def test_paths_without_images() -> None:
    Path("empty").mkdir()
    for path, message in [
        ("missing.png", "There is no file missing.png"),
        ("empty", "The folder empty has no images"),
        ("photos/*.gif", r"No images match photos/\*.gif"),
        ("photos/*.txt", "No images match"),
    ]:
        with pytest.raises(ImageError, match=message):
            found(path)


def test_results_are_not_taken_for_images() -> None:
    for path in ("photos", "photos/*.png"):
        with pytest.raises(OutputError, match=r"takes images from the folder of the results.*Choose another --out"):
            found(path, out=Path("photos"))
    assert found("photos/a.png", out=Path("photos")) == ["photos/a.png"]
    assert found("photos", out=Path("photos/out"))


def test_names_too_long_and_circles_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "loop"):
        with pytest.raises(ImageError):
            find_images([path], tmp_path / "out")
        with pytest.raises(OutputError):
            check_out_folder(path / "out", "--out")
    with pytest.raises(OutputError, match="cannot be used"):
        find_images([], tmp_path / "loop")


def test_web_addresses_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="web address"):
        find_images([Path("https://example.org/a.png")], tmp_path / "out")
