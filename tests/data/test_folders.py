"""Finding files: patterns, and links that lead back."""

from __future__ import annotations

from pathlib import Path

import pytest

from segany.data.folders import files_below, matching_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg", "one/c.png", "one/two/d.png", "one/two/e.txt", ".hidden/f.png", "[x]/g.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.png", ["[x]/g.png", "a.png", "one/c.png", "one/two/d.png"]),
        ("**", ["[x]/g.png", "a.png", "b.jpg", "one/c.png", "one/two/d.png", "one/two/e.txt"]),
        ("one/**/*.png", ["one/c.png", "one/two/d.png"]),
        ("o*/**/[de].*", ["one/two/d.png", "one/two/e.txt"]),
        ("**/two/*", ["one/two/d.png", "one/two/e.txt"]),
        ("*.png", ["a.png"]),
        ("**/[!a].png", ["[x]/g.png", "one/c.png", "one/two/d.png"]),
        ("nothing/**/*.png", []),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    found = [path.relative_to(folder).as_posix() for path in matching_files(f"{folder}/{pattern}")]
    assert found == expected


def test_links_that_lead_back_are_entered_once(folder: Path) -> None:
    for number in range(3):  # glob would try every way through them, 40 links deep
        (folder / "one" / f"back{number}").symlink_to(folder)
    found = [path.name for path in matching_files(f"{folder}/**/*.png")]
    assert sorted(found) == ["a.png", "c.png", "d.png", "g.png"]


def test_a_link_to_itself_does_not_hide_the_others(folder: Path) -> None:
    (folder / "one" / "loop").symlink_to("loop")
    (folder / "one" / "loop.png").symlink_to("loop.png")
    assert [path.name for path in files_below(folder, {".jpg"})] == ["b.jpg"]
    assert "loop.png" in [path.name for path in files_below(folder, {".png"})]  # reading it says what is wrong
