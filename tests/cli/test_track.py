"""`segany track` with a session that only pretends: options, files, interrupts and errors."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.videos_for_tests import cut, number_in, numbered_frame, write_video
from typer.testing import CliRunner, Result

from segany.cli import track as track_module
from segany.cli.app import app
from segany.core.errors import EndOfVideoError, VideoError
from segany.core.frame_result import FrameResult
from segany.imaging.frames import FrameSource, open_frames

FRAMES = 8


class FakeSession:
    """Sees object i as a square at 5 i, and remembers what it was asked. Prompts are answered with other squares."""

    def __init__(self) -> None:
        self.source: FrameSource
        self.options: tuple = ()
        self.prompts: list[tuple] = []
        self.categories: dict[int, object] = {}
        self.propagated: dict = {}
        self.is_closed = False
        self.on_frame: Callable[[int], None] = lambda frame: None

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *error: object) -> None:
        self.is_closed = True
        self.source.close()  # the worst a session can do: nobody may need the frames afterwards

    @property
    def frames(self) -> FrameSource:
        return self.source

    def prompt(self, frame: int, object_id: int, prompt, *, category=None) -> FrameResult:
        self.source.read(frame)
        self.prompts.append((frame, object_id, prompt))
        self.categories[object_id] = category
        return self.seen(frame, (object_id,), score=9.0, columns=slice(30, 40))

    def propagate(self, start: int | None, direction: str, progress=None) -> Iterator[FrameResult]:
        self.propagated = {"start": start, "direction": direction}
        first = min(frame for frame, *_ in self.prompts) if start is None else start
        if direction != "backward":
            yield from self.walk(first, 1)
        if direction != "forward":
            yield from self.walk(first, -1)

    def walk(self, frame: int, step: int) -> Iterator[FrameResult]:
        while frame >= 0:
            try:
                self.source.read(frame)
            except EndOfVideoError:
                return
            self.on_frame(frame)
            ids = tuple(sorted({object_id for _, object_id, _ in self.prompts}))
            yield self.seen(frame, ids, score=2.0 if frame % 2 else -2.0, columns=slice(5, 20))
            frame += step

    def seen(self, frame: int, ids: tuple[int, ...], score: float, columns: slice) -> FrameResult:
        masks = np.zeros((len(ids), *self.source.size_hw), np.bool_)
        for mask, object_id in zip(masks, ids, strict=True):
            mask[5 * object_id : 5 * object_id + 5, columns] = True
        return FrameResult.from_masks(frame, ids, masks, np.full(len(ids), score))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()

    def opener(source: FrameSource, model: str, device: str | None, **options) -> FakeSession:
        fake.source, fake.options = source, (model, device, options)
        return fake

    monkeypatch.setattr(track_module, "open_session", opener)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: FakeSession) -> Callable[..., Result]:
    """Runs `segany track` with these arguments, in a folder with clip.mp4."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), FRAMES)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["track", *arguments], env={"COLUMNS": "200"})

    return invoke


def written(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def shown(path: str) -> list[int]:
    with open_frames(path) as source:
        return [number_in(source.read(index)) for index in range(source.count)]


def tracked(path: str = "out/clip_tracks.npz") -> list[int]:
    with np.load(path) as arrays:
        return arrays["frames"].tolist()


def check_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    assert not Path("out").exists()


def test_default_formats_are_label_images_and_an_overlay(run, session: FakeSession) -> None:
    result = run("clip.mp4", "--point", "0:10,20", "--box", "2:1,2,30,30@4")
    assert result.exit_code == 0, result.output
    assert written() == [*(f"clip_masks/0000{frame}.png" for frame in range(FRAMES)), "clip_overlay.mp4"]
    with open_frames("out/clip_overlay.mp4") as overlay:
        assert overlay.count == FRAMES
    (first, one, point), (second, four, box) = session.prompts
    assert (first, one, second, four) == (0, 1, 2, 4)
    assert point.points_xy.tolist() == [[10, 20]]
    assert box.box_xyxy.tolist() == [1, 2, 30, 30]
    assert session.options == ("sam2.1_hiera_tiny", None, {"motion_aware": False, "min_mask_region_area": 0})
    assert session.propagated == {"start": None, "direction": "forward"}
    assert session.is_closed
    lines = result.stdout.splitlines()
    assert lines[0].startswith("clip.mp4  64 x 32, 8 frames, ")
    assert lines[0].endswith(" frames/s")
    assert lines[1:] == [
        "  object 1  visible in 4 frames",
        "  object 4  visible in 4 frames",
        "  out/clip_overlay.mp4",
        "  out/clip_masks",
    ]
    assert result.stderr == ""


def test_options_reach_the_session(run, session: FakeSession) -> None:
    Image.fromarray(numbered_frame(1)).save("m.png")
    options = ["--model", "m", "--device", "cpu", "--motion-aware", "--min-mask-region-area", "50", "--start", "5"]
    assert run("clip.mp4", "--mask", "3:m.png@2", *options, "--direction", "both").exit_code == 0
    assert session.options == ("m", "cpu", {"motion_aware": True, "min_mask_region_area": 50})
    assert session.propagated == {"start": 5, "direction": "both"}
    ((frame, object_id, mask),) = session.prompts
    assert (frame, object_id, mask.dtype, mask.shape) == (3, 2, np.bool_, (32, 64))


@pytest.mark.parametrize(
    ("direction", "frames"), [("forward", [3, 4, 5, 6, 7]), ("backward", [0, 1, 2, 3]), ("both", [*range(8)])]
)
def test_a_direction_tracks_its_frames(run, session: FakeSession, direction: str, frames: list[int]) -> None:
    box = "3:40,20,60,30"
    assert run("clip.mp4", "--box", box, "--direction", direction, "--format", "npz,overlay").exit_code == 0
    assert tracked() == frames
    with open_frames("out/clip_overlay.mp4") as overlay:
        assert overlay.count == len(frames)


def test_max_frames_ends_tracking_early(run) -> None:
    assert run("clip.mp4", "--point", "2:1,1", "--max-frames", "3", "--format", "npz").exit_code == 0
    assert tracked() == [2, 3, 4]


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch, session: FakeSession) -> list[str]:
    """Makes every video a stream of frames that come once. Lists what happened, in its order."""
    happened = []
    prompt, on_frame = session.prompt, session.on_frame

    def noted(frame: int, object_id: int, *given, **options):
        happened.append(f"prompt {object_id} on {frame}")
        return prompt(frame, object_id, *given, **options)

    def opener(source: str | int, **options) -> FrameSource:
        return open_frames((numbered_frame(number) for number in range(FRAMES)), **options)

    monkeypatch.setattr(track_module, "open_frames", opener)
    monkeypatch.setattr(session, "prompt", noted)
    session.on_frame = lambda frame: (happened.append(f"frame {frame}"), on_frame(frame))
    return happened


def test_where_frames_come_once_later_prompts_wait_for_theirs(run, camera: list[str]) -> None:
    points = ["--point", "5:1,1@2", "--point", "2:1,1", "--point", "5:3,3", "--point", "2:1,1@4"]
    result = run("0", *points, "--format", "npz,overlay", "--max-frames", "5")
    assert result.exit_code == 0, result.output
    assert camera == [
        "prompt 1 on 2", "prompt 4 on 2", "frame 2", "frame 3", "frame 4", "frame 5",
        "prompt 1 on 5", "prompt 2 on 5", "frame 6",
    ]  # fmt: skip
    with np.load("out/camera0_tracks.npz") as arrays:
        assert arrays["frames"].tolist() == [2, 3, 4, 5, 6]
        assert arrays["object_ids"].tolist() == [1, 2, 4]
        nan = np.nan  # object 2 is not there yet; what was prompted has its answer, and object 4 its result
        np.testing.assert_array_equal(
            arrays["scores"], [[-2, nan, -2], [2, nan, 2], [-2, nan, -2], [9, 9, 2], [-2, -2, -2]]
        )
        masks = arrays["masks"][3]
    for mask, rows, columns in zip(masks, (5, 10, 20), (slice(30, 40), slice(30, 40), slice(5, 20)), strict=True):
        assert mask[rows : rows + 5, columns].all()
        assert mask.sum() == mask[rows : rows + 5, columns].size
    assert len(shown_frames("out/camera0_overlay.mp4")) == 5


def test_where_frames_come_once_start_may_be_after_the_first_prompts(run, camera: list[str]) -> None:
    points = ["--point", "1:1,1", "--point", "3:1,1", "--point", "4:1,1", "--point", "6:1,1"]
    assert run("0", *points, "--start", "4", "--format", "npz").exit_code == 0
    assert camera == [
        "prompt 1 on 1", "prompt 1 on 3", "prompt 1 on 4", "frame 4", "frame 5", "frame 6", "prompt 1 on 6", "frame 7",
    ]  # fmt: skip


def test_a_prompt_after_the_end_of_a_stream(run, camera: list[str]) -> None:
    result = run("0", "--point", "0:1,1", "--point", "8:1,1@3", "--format", "npz")
    assert result.exit_code == 2
    assert "Frame 8, object 3: there is no such frame: " in result.stderr
    assert f"ended after {FRAMES} frames" in result.stderr
    assert "The files hold the 8 frames that were tracked before." in result.stderr
    assert tracked("out/camera0_tracks.npz") == [*range(FRAMES)]


def test_formats_repeated_and_in_a_list(run) -> None:
    assert run("clip.mp4", "--point", "0:1,1", "--format", "sav,npz", "--format", "coco-video").exit_code == 0
    assert written() == ["clip_coco_video.json", "clip_sav.json", "clip_tracks.npz"]
    assert json.loads(Path("out/clip_sav.json").read_text())["masklet_edited_frame_count"] == [1]


def test_out_may_be_a_video(run) -> None:
    assert run("clip.mp4", "--point", "0:1,1", "--out", "made/tracked.mp4").exit_code == 0
    assert written("made") == ["tracked.mp4"]
    assert run("clip.mp4", "--point", "0:1,1", "--out", "made/t.mp4", "--format", "overlay,sav").exit_code == 0
    assert written("made") == ["t.mp4", "t_sav.json", "tracked.mp4"]


def test_folders_of_images(run) -> None:
    Path("shots").mkdir()
    for number in range(3):
        Image.fromarray(numbered_frame(number)).save(f"shots/s{number}.png")
    assert run("shots/", "--point", "0:1,1", "--format", "masks-png").exit_code == 0
    assert written() == [f"shots_masks/s{number}.png" for number in range(3)]


def test_folders_of_images_of_12_bits(run, session: FakeSession) -> None:
    """The advice of the error is an option of this command."""
    Path("shots").mkdir()
    for number in range(2):
        gray = numbered_frame(number + 1)[..., 0].astype(np.uint16) * 15
        Image.fromarray(gray).save(f"shots/s{number}.png")
    arguments = ("shots", "--point", "0:1,1", "--format", "masks-png")
    check_refused(run(*arguments), "--range 0,")
    result = run(*arguments, "--range", "0,3825")
    assert result.exit_code == 0, result.output
    assert written() == [f"shots_masks/s{number}.png" for number in range(2)]


def test_json_reports_results_and_speed(run) -> None:
    result = run("clip.mp4", "--point", "0:1,1", "--json", "--format", "npz")
    report = json.loads(result.stdout)
    assert report.pop("seconds") > 0
    assert report.pop("frames_per_second") > 0
    assert report == {
        "video": "clip.mp4",
        "size_hw": [32, 64],
        "frames": 8,
        "objects": [{"object": 1, "visible_frames": 4}],
        "interrupted": False,
        "warnings": [],
        "files": {"npz": ["out/clip_tracks.npz"]},
    }


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_interrupt_leaves_whole_files(run, session: FakeSession, direction: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    session.on_frame = lambda frame: os.kill(os.getpid(), signal.SIGINT) if frame == 4 else None
    result = run("clip.mp4", "--point", "3:1,1", "--start", "3" if direction == "forward" else "5",
                 "--direction", direction, "--format", "npz,overlay,masks-png")  # fmt: skip
    assert result.exit_code == 130
    expected = [3, 4] if direction == "forward" else [4, 5]
    assert tracked() == expected
    assert written() == [*(f"clip_masks/0000{i}.png" for i in expected), "clip_overlay.mp4", "clip_tracks.npz"]
    assert len(shown_frames("out/clip_overlay.mp4")) == 2
    assert "Interrupted. The files hold what was tracked until then." in result.stderr
    assert "2 frames" in result.stdout
    assert signal.getsignal(signal.SIGINT) == before


def shown_frames(path: str) -> list:
    with open_frames(path) as source:
        return [source.read(index) for index in range(source.count)]


def test_a_second_interrupt_stops_at_once(run, session: FakeSession) -> None:
    def twice(frame: int) -> None:
        if frame == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    session.on_frame = twice
    result = run("clip.mp4", "--point", "0:1,1", "--format", "npz")
    assert result.exit_code == 130
    assert tracked() == [0, 1]


def test_an_error_on_the_way_keeps_what_was_done(run, session: FakeSession) -> None:
    def fail(frame: int) -> None:
        if frame == 3:
            raise VideoError("Frame 3 is strange.")

    session.on_frame = fail
    result = run("clip.mp4", "--point", "0:1,1", "--format", "npz,overlay")
    assert result.exit_code == 2
    assert "error: Frame 3 is strange." in result.stderr
    assert "The files hold the 3 frames that were tracked before." in result.stderr
    assert tracked() == [0, 1, 2]
    assert len(shown_frames("out/clip_overlay.mp4")) == 3


def test_a_truncated_video_is_tracked_as_far_as_it_goes(run) -> None:
    cut(write_video(Path("long.mkv"), 60), 0.6)
    result = run("cut_long.mkv", "--point", "0:1,1", "--format", "npz")
    assert result.exit_code == 0, result.output
    assert 10 < len(tracked("out/cut_long_tracks.npz")) < 60
    assert "warning: cut_long.mkv is cut off" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["clip.mp4"], "There is nothing to track"),
        (["clip.mp4", "--point", "10,20"], "it must begin with the number of a frame"),
        (["clip.mp4", "--point", "8:10,20"], "there is no such frame: clip.mp4 has 8 frames"),
        (["clip.mp4", "--point", "0:100,20"], "lies outside"),
        (["clip.mp4", "--point", "0:1,1", "--start", "9"], "--start 9: there is no such frame. clip.mp4 has 8"),
        (["clip.mp4", "--point", "0:1,1", "--format", "gif"], "There is no format 'gif'"),
        (["clip.mp4", "--point", "0:1,1@300"], "masks-png holds object ids from 1 to 255"),
        (["clip.mp4", "--point", "0:1,1", "--out", "clip.mp4/x"], "clip.mp4 is not a folder"),
        (["clip.mp4", "--point", "0:1,1", "--out", "clip.mp4"], "clip.mp4 is one of the inputs"),
        (["clip.mp4", "--point", "0:1,1", "--out", "o.mp4", "--format", "npz"], "--format has no overlay"),
        (["missing.mp4", "--point", "0:1,1"], "There is no video missing.mp4"),
        (["97", "--point", "0:1,1"], "Camera 97"),
    ],
)
def test_invalid_requests_are_refused_with_a_reason(run, session: FakeSession, arguments: list[str], part: str) -> None:
    check_refused(run(*arguments), part)


def test_a_file_that_is_no_video(run) -> None:
    Path("notes.mp4").write_text("no video\n" * 100)
    check_refused(run("notes.mp4", "--point", "0:1,1"), "notes.mp4 is not a video")


def test_without_pyav_folders_can_be_tracked_without_an_overlay(run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shots").mkdir()
    Image.fromarray(numbered_frame(1)).save("shots/1.png")
    monkeypatch.setitem(sys.modules, "av", None)  # importing it fails
    check_refused(run("shots", "--point", "0:1,1"), 'pip install "segany[video]"')
    assert run("shots", "--point", "0:1,1", "--format", "masks-png,sav").exit_code == 0


def test_large_ids_with_other_formats(run) -> None:
    assert run("clip.mp4", "--point", "0:1,1@300", "--format", "sav,overlay").exit_code == 0
    assert json.loads(Path("out/clip_sav.json").read_text())["masklet_id"] == [300]


def test_help_shows_the_prompts_file(run) -> None:
    result = run("--help")
    assert '"frame": 0' in result.stdout
    assert "FRAME:X,Y[,LABEL][@ID]" in result.stdout
