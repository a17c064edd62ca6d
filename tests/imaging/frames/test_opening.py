"""Folders, lists, arrays, iterators and cameras as sources of frames."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.videos_for_tests import number_in, numbered_frame

from segany.core.arrays import PixelArray
from segany.core.errors import EndOfVideoError, ImageError, VideoError
from segany.imaging.frames import open_frames
from segany.imaging.pixels import PixelOptions


def frames(count: int) -> list[PixelArray]:
    return [numbered_frame(number) for number in range(count)]


def save(path: Path, number: int, **options) -> Path:
    Image.fromarray(numbered_frame(number, **options)).save(path)
    return path


@pytest.mark.parametrize("make", [list, iter, np.stack])
def test_pixel_options_are_those_of_images(make) -> None:
    dark = [frame.astype(np.uint16) * 15 for frame in frames(3)[1:]]
    with open_frames(make(dark), pixel_options=PixelOptions(value_range=(0, 3825))) as source:
        assert [number_in(source.read(index)) for index in range(2)] == [1, 2]
    with pytest.raises(ImageError, match="--range 0,"):
        open_frames(make(dark))


def test_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["img1.png", "img2.png", "img03.png", "img10.PNG", "img100.bmp"]
    for number, name in reversed(list(enumerate(names))):
        save(tmp_path / name, number)
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png", 77)
    (tmp_path / "folder.png").mkdir()
    with open_frames(tmp_path) as source:
        assert source.count == 5
        assert source.frame_rate is None
        assert [number_in(source.read(index)) for index in (0, 1, 2, 3, 4, 1)] == [0, 1, 2, 3, 4, 1]
        assert [source.frame_name(index) for index in range(5)] == ["img1", "img2", "img03", "img10", "img100"]


def test_names_that_do_not_tell_frames_apart(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    save(tmp_path / "a.bmp", 1)
    with open_frames(tmp_path) as source:
        assert [source.frame_name(index) for index in range(2)] == ["00000", "00001"]


def test_folder_with_frames_of_two_sizes(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    save(tmp_path / "2.png", 2, size_hw=(40, 80))
    with open_frames(tmp_path) as source:
        source.read(0)
        with pytest.raises(VideoError, match=r"2\.png is 80 wide and 40 high, but the first frame is 64 wide and 32"):
            source.read(1)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with open_frames(tmp_path) as source, pytest.raises(ImageError, match=r"2\.png"):
        source.read(1)


def test_lists_and_arrays(tmp_path: Path) -> None:
    save(tmp_path / "5.png", 5)
    mixed = [numbered_frame(3), Image.fromarray(numbered_frame(4)), tmp_path / "5.png"]
    for given, numbers in ((mixed, [3, 4, 5]), (np.stack(frames(3)), [0, 1, 2]), (tuple(frames(2)), [0, 1])):
        with open_frames(given) as source:
            assert source.count == len(numbers)
            assert source.can_seek
            assert [number_in(source.read(index)) for index in range(len(numbers))] == numbers
            with pytest.raises(EndOfVideoError, match=f"has {len(numbers)} frames"):
                source.read(len(numbers))


class OneWay(io.RawIOBase):
    """A binary file that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int | None = -1) -> bytes:
        return self.data.read(size)


def test_frames_of_bytes_and_files(tmp_path: Path) -> None:
    encoded = [save(tmp_path / f"{number}.png", number).read_bytes() for number in range(3)]
    with open_frames([encoded[0], io.BytesIO(encoded[1]), OneWay(encoded[2])]) as source:
        for index in (0, 2, 1, 2, 0, 1):  # files that cannot seek too may be read again
            assert number_in(source.read(index)) == index
    with open_frames(iter([OneWay(encoded[0]), encoded[1]])) as source:
        assert [number_in(source.read(index)) for index in range(2)] == [0, 1]


def test_a_source_stays_what_it_is() -> None:
    source = open_frames(frames(2))
    assert open_frames(source) is source


def test_iterators_go_forward_only() -> None:
    with open_frames(iter(frames(6))) as source:
        assert source.count is None
        assert not source.can_seek
        assert [number_in(source.read(index)) for index in (0, 0, 1, 3)] == [0, 0, 1, 3]
        with pytest.raises(VideoError, match="at frame 3 and cannot go back to frame 2") as raised:
            source.read(2)
        assert not isinstance(raised.value, EndOfVideoError)
        assert number_in(source.read(5)) == 5
        with pytest.raises(EndOfVideoError, match="Frame 6 does not exist: The stream has 6 frames, 0 to 5"):
            source.read(6)
        assert source.count == 6


def test_iterators_are_read_as_needed_and_closed() -> None:
    taken = []

    def generate() -> Iterator[PixelArray]:
        try:
            for number in range(100):
                taken.append(number)
                yield numbered_frame(number)
        finally:
            taken.append("closed")

    with open_frames(generate()) as source:
        source.read(2)
        assert taken == [0, 1, 2]
    assert taken == [0, 1, 2, "closed"]


def test_stream_with_frames_of_two_sizes() -> None:
    source = open_frames(iter([numbered_frame(0), numbered_frame(1, (40, 80))]))
    with pytest.raises(VideoError, match=r"Frame 1 of The stream is 80 wide and 40 high, but the first"):
        source.read(1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "no frames"),
        (iter([]), "no frames"),
        (np.zeros((4, 4, 3), np.uint8), r"shape \[T, H, W, 3\], got \[4, 4, 3\]"),
        (3.5, "got float"),
        (True, "got bool"),
        (b"bytes", "got bytes"),
        (io.BytesIO(b"bytes"), "got BytesIO"),
        (None, "got NoneType"),
        ("missing.mp4", "There is no video missing.mp4"),
        ("https://example.com/a.mp4", "those are not fetched"),
    ],
)
def test_what_is_no_source(source, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        open_frames(source)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(VideoError, match="holds no images"):
        open_frames(tmp_path)


def test_frames_of_one_stem_are_told_of(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        save(tmp_path / name, 1)
    with open_frames(tmp_path) as source:
        assert source.count == 3
        assert [source.frame_file_name(index) for index in range(3)] == ["a.jpg", "a.png", "b.png"]
        (warning,) = source.warnings
        assert "differ only in their endings, and both are frames" in warning
