"""Video files: the right frame for every number, in any order, whatever the file is like."""

import gc
import io
import random
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tests.videos_for_tests import SIZE_HW, cut, number_in, numbered_frame, write_video

from segany.core.errors import EndOfVideoError, MissingExtraError, VideoError
from segany.imaging.frames import open_frames, video_file
from segany.imaging.frames.video_file import FORWARD_FRAMES, VideoFileFrames

KINDS = {
    "h264_b_frames": ("v.mp4", {"b_frames": 3}),
    "h264_one_keyframe": ("v.mp4", {"gop": 250}),
    "h264_open_gop": ("v.mp4", {"b_frames": 3, "codec_options": {"x264-params": "open-gop=1:keyint=10:min-keyint=10"}}),
    "h264_faststart": ("v.mp4", {"options": {"movflags": "faststart"}}),
    "h264_no_edit_list": ("v.mp4", {"options": {"use_editlist": "0"}}),  # begins at a time that is not zero
    "h264_intra_refresh": ("v.mp4", {"b_frames": 0, "codec_options": {"x264-params": "intra-refresh=1:keyint=12"}}),
    "h264_fragmented": ("v.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "h265_open_gop": (
        "v.mp4",
        {"codec": "libx265", "codec_options": {"x265-params": "keyint=12:min-keyint=12:open-gop=1:log-level=none"}},
    ),
    "vp9_hidden_frames": (
        "v.webm",
        {"codec": "libvpx-vp9", "b_frames": 0, "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    ),
    "matroska": ("v.mkv", {}),
    "transport_stream": ("v.ts", {}),
    "mpeg4_avi": ("v.avi", {"codec": "mpeg4"}),
    "mpeg2_program_stream": ("v.mpg", {"codec": "mpeg2video"}),
    "motion_jpeg": ("v.avi", {"codec": "mjpeg", "b_frames": 0}),
    "raw_h264": ("v.h264", {}),
    "vp8_hidden_frames": (
        "v.webm",
        {"codec": "libvpx", "b_frames": 0, "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}},
    ),
    "variable_rate": ("v.mkv", {"times": np.cumsum([1 + (i * 7) % 5 for i in range(40)]).tolist()}),
    "variable_rate_mp4": ("v.mp4", {"times": np.cumsum([1 + (i * 7) % 5 for i in range(40)]).tolist()}),
    "negative_start": ("v.mp4", {"times": list(range(-10, 30))}),
    "late_start": ("v.mkv", {"times": list(range(900, 940))}),
}


@pytest.fixture(params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, options = KINDS[request.param]
    if options.get("codec", "libx264") not in av.codecs_available:
        pytest.skip("this FFmpeg does not encode it")
    return write_video(tmp_path / name, **options)


def test_every_frame_in_any_order(video: Path) -> None:
    with open_frames(str(video)) as source:
        first = number_in(source.read(0))  # some formats drop what is shown before zero
        count = source.count
        assert count == 40 - first
        assert source.size_hw == SIZE_HW
        assert source.can_seek
        assert source.warnings == []
        shuffled = random.Random(0).sample(range(count), count)
        jumps = [count - 1, 0, 20, 19, 21, 3, 2]
        for order in (range(count), reversed(range(count)), shuffled, jumps):
            for index in order:
                assert number_in(source.read(index)) == index + first


def test_no_frame_is_lost_at_the_start(tmp_path: Path) -> None:
    with open_frames(write_video(tmp_path / "v.mp4")) as source:
        assert (source.count, source.frame_rate) == (40, 30)
        assert number_in(source.read(0)) == 0


def test_pixels_are_red_green_blue(tmp_path: Path) -> None:
    with open_frames(write_video(tmp_path / "v.mp4")) as source:
        pixels = source.read(5)
        assert pixels.shape == (*SIZE_HW, 3)
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - numbered_frame(5)).mean() < 12


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV writes no rotation")
@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, rotation: int, is_mirrored: bool) -> None:
    with open_frames(write_video(tmp_path / "v.mp4", rotation=rotation, is_mirrored=is_mirrored)) as source:
        pixels = source.read(6)
        assert pixels.shape[:2] == source.size_hw == (SIZE_HW[::-1] if rotation % 180 else SIZE_HW)
        assert source.warnings == []
        straight = pixels[:, ::-1] if is_mirrored else pixels  # mirrored last, counterclockwise first
        assert number_in(np.rot90(straight, -rotation // 90)) == 6


def test_the_frame_rate_is_that_of_the_frames(tmp_path: Path) -> None:
    with open_frames(write_video(tmp_path / "v.mkv", rate=25)) as source:
        assert source.frame_rate == 25
    times = [0, 1, 2, 3, *range(13, 373, 10)]  # begins ten times as fast as it goes on
    with open_frames(write_video(tmp_path / "v.mkv", times=times)) as source:
        assert source.frame_rate == pytest.approx(39 / (363 / 30), rel=0.01)


class Counted(VideoFileFrames):
    """Counts the frames that are decoded, and how many are kept."""

    decoded = 0
    most_kept = 0

    def _keep(self, number, frame, length) -> None:
        super()._keep(number, frame, length)
        self.decoded += 1
        self.most_kept = max(self.most_kept, self.window_frames)


def test_reading_forward_decodes_each_frame_once(tmp_path: Path) -> None:
    with Counted(write_video(tmp_path / "v.mp4", 120), 10**6) as source:
        for index in range(120):
            source.read(index)
        assert source.decoded == 120
        assert source.most_kept <= FORWARD_FRAMES


def test_reading_backward_decodes_a_group_once(tmp_path: Path) -> None:
    with Counted(write_video(tmp_path / "v.mp4", 120, gop=20), 10**6) as source:
        for index in reversed(range(120)):
            source.read(index)
        assert source.decoded <= 120 + 20  # and the first frame when it was opened
        assert source.most_kept <= 20


def test_a_long_group_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "WINDOW_FRAMES", (8, 16))
    with Counted(write_video(tmp_path / "v.mp4", 128, gop=250), 10**6) as source:
        for index in reversed(range(128)):
            assert number_in(source.read(index)) == index
        assert source.most_kept == 16
        assert source.decoded < 128 * 128 / 16 / 2 + 2 * 128  # 128^2 / 2 without a window


def test_large_frames_make_the_window_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "WINDOW_BYTES", 10 * SIZE_HW[0] * SIZE_HW[1] * 3 // 2)
    with Counted(write_video(tmp_path / "v.mp4", 60, gop=60), 10**6) as source:
        source.read(59)
        source.read(40)
        assert 8 <= source.window_frames <= 10


def test_jumping_forward_seeks(tmp_path: Path) -> None:
    with Counted(write_video(tmp_path / "v.mp4", 200, gop=20), 10**6) as source:
        assert number_in(source.read(199)) == 199
        assert source.decoded <= 1 + 20


@pytest.mark.parametrize("name", ["v.mkv", "v.ts", "fast.mp4", "v.avi", "v.mpg"])
def test_of_a_truncated_file_the_readable_frames_are_there(tmp_path: Path, name: str) -> None:
    share = 0.8 if name in ("v.avi", "fast.mp4") else 0.6  # those begin with large headers
    options = {
        "fast.mp4": {"options": {"movflags": "faststart"}},
        "v.avi": {"codec": "mpeg4"},
        "v.mpg": {"codec": "mpeg2video"},
    }
    with open_frames(cut(write_video(tmp_path / name, 60, **options.get(name, {})), share)) as source:
        count = source.count
        shown = [number_in(source.read(index)) for index in range(count)]
        with pytest.raises(EndOfVideoError, match=f"has {count} frames"):
            source.read(count)
        assert 10 < len(shown) < 60
        # What is cut off in the middle may lack a frame that others are shown around.
        assert shown[: len(shown) - 3] == list(range(len(shown) - 3))
        assert shown == sorted(shown)
        if name not in ("v.ts", "v.mpg"):  # streams do not tell how long they were
            assert len(source.warnings) >= 1
            assert "cut_" in source.warnings[0]
            assert "readable frames are used" in source.warnings[-1]


def test_without_its_table_an_mp4_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"cut_v\.mp4 .*(cut off|damaged)"):
        open_frames(cut(write_video(tmp_path / "v.mp4"), 0.5))


def damage(path: Path, first: int, end: int) -> None:
    """Overwrite the packets of these frames, as many as there are from `first` on before `end`, with zeros."""
    with av.open(str(path)) as container:
        packets = sorted((item.pts, item.pos, item.size) for item in container.demux(video=0) if item.size)
    data = bytearray(path.read_bytes())
    for _, position, size in packets[first:end]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("length", [1, 2, 5, 17])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.avi", {"codec": "mjpeg"}),
        ("v.mp4", {"codec": "mpeg4"}),
        ("v.mp4", {"codec_options": {"sc_threshold": "0"}}),  # keyframes where they are expected
    ],
    ids=["mjpeg", "mpeg4", "h264"],
)
def test_damaged_frames_repeat_the_one_before(tmp_path: Path, name: str, options: dict, length: int) -> None:
    path = write_video(tmp_path / name, 48, b_frames=0, **options)
    damage(path, 36 - length, 36)  # up to a keyframe, so that no other frame is harmed
    expected = [*range(36 - length), *[35 - length] * length, *range(36, 48)]
    orders = {
        "forward": range(48),
        "backward": range(47, -1, -1),
        "shuffled": random.Random(0).sample(range(48), 48),
        "into the gap": [35, 34, 0, 34, 35, 47, 36 - length, 36],
    }
    for order, indices in orders.items():
        with open_frames(path) as source:
            shown = {index: number_in(source.read(index)) for index in indices}
            assert shown == {index: expected[index] for index in indices}, order
            assert source.count == 48
            gap = f"frames {36 - length} to 35 are damaged and repeat their neighbor."
            assert source.warnings == [f"{path}: {gap}"]


def test_a_long_gap_costs_neither_memory_nor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "WINDOW_FRAMES", (8, 8))
    path = write_video(tmp_path / "v.mp4", 96, codec="mpeg4", b_frames=0)
    damage(path, 20, 72)
    with Counted(path, 10**6) as source:
        for index in range(96):
            source.read(index)
        assert source.most_kept <= FORWARD_FRAMES
        source.decoded = 0
        for index in reversed(range(20, 72)):
            assert number_in(source.read(index)) == 19
        assert source.decoded <= 9  # from the keyframe before the gap to the frame after it, once
        assert source.most_kept <= 8


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"just some words\n" * 100, "is not a video"), (bytes(5000), "is not a video")],
)
def test_what_is_no_video(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"bad.mp4 {message}"):
        open_frames(path)


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = SIZE_HW
        container.start_encoding()
    with pytest.raises(VideoError, match=r"none\.mkv has no frames"):
        open_frames(path)


def test_numbers_that_do_not_exist(tmp_path: Path) -> None:
    with open_frames(write_video(tmp_path / "v.mp4")) as source:
        with pytest.raises(EndOfVideoError, match=r"Frame 40 does not exist: .*v.mp4 has 40 frames, 0 to 39\."):
            source.read(40)
        with pytest.raises(VideoError, match="numbered from 0"):
            source.read(-1)
    with pytest.raises(VideoError, match="is closed"):
        source.read(0)


def test_too_large(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"2,048 pixels \(64 x 32\), more than the limit of 2,000"):
        open_frames(write_video(tmp_path / "v.mp4"), max_pixels=2000)


def test_names_with_colons_and_spaces(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4").rename(tmp_path / "a: b%03d.mp4")
    with open_frames(path) as source:
        assert number_in(source.read(3)) == 3


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)  # importing it fails
    for source in (path, 0):
        with pytest.raises(MissingExtraError, match=r'pip install "segany\[video\]"'):
            open_frames(source)


def test_frames_that_change_their_size(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / "1.h264", 5), write_video(tmp_path / "2.h264", 5, size_hw=(48, 64))]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_frames(path) as source:
        assert number_in(source.read(4)) == 4
        with pytest.raises(VideoError, match=r"Frame 5 of .* is 64 wide and 48 high, but the first frame is 64 wide"):
            source.read(5)


@pytest.mark.parametrize("name", ["v.avi", "v.mkv", "v.mp4"])
def test_title_that_is_not_utf_8_does_not_matter(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, codec="mpeg4", b_frames=0, metadata={"title": "Muenchen XX"})
    data = path.read_bytes()
    assert b"Muenchen XX" in data
    path.write_bytes(data.replace(b"Muenchen XX", b"M\xfcnchen XXX"))
    with open_frames(path) as source:
        assert number_in(source.read(3)) == 3


def test_frames_that_carry_exif_are_read_and_turned_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width = SIZE_HW
        stream.pix_fmt = "yuvj420p"
        for number in range(3):
            jpeg = io.BytesIO()
            Image.fromarray(numbered_frame(number)).save(jpeg, "JPEG", exif=exif)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            container.mux(packet)
    with open_frames(path) as source:
        frame = source.read(2)
    if frame.shape[:2] != SIZE_HW:  # FFmpeg reads EXIF of Motion JPEG from version 8 on
        frame = np.rot90(frame)
    assert number_in(np.ascontiguousarray(frame)) == 2


def test_sound_alone_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="has no video: it holds sound alone"):
        open_frames(path)


def test_playlists_open_no_other_file(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.ts")
    playlist = tmp_path / "clip.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="not a video"):
        open_frames(playlist)
    playlist.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    with pytest.raises(VideoError, match="not a video"):
        open_frames(playlist)


@pytest.mark.parametrize(("rotation", "expected"), [(0, Fraction(16, 11)), (90, Fraction(11, 16))])
def test_pixel_aspect_is_that_of_shown_pixels(tmp_path: Path, rotation: int, expected: Fraction) -> None:
    path = write_video(tmp_path / "v.mp4", pixel_aspect=Fraction(16, 11), rotation=rotation)
    with open_frames(path) as source:
        assert source.pixel_aspect == expected
    with open_frames(write_video(tmp_path / "square.mp4")) as source:
        assert source.pixel_aspect == 1


def test_an_animation_in_webp_is_called_that(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered_frame(number)) for number in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(VideoError, match="animation in WebP"):
        open_frames(tmp_path / "a.webp")


def test_frames_and_their_threads_are_gone_once_they_are_read(tmp_path: Path) -> None:
    """PyAV's frames are in cycles once their side data are asked for, and each has threads that convert it."""

    def read_all() -> int:
        with open_frames(path) as source:
            for index in range(source.count or 0):
                source.read(index)
        return len(list(Path("/proc/self/task").iterdir()))

    if not Path("/proc/self/task").is_dir():
        pytest.skip("counts threads in /proc")
    path = write_video(tmp_path / "in.mp4", 12)
    gc.collect()
    gc.disable()
    try:
        first = read_all()
        assert [read_all() for _ in range(3)][-1] <= first + 2
    finally:
        gc.enable()
