"""Writing tracks: every format can be read back, in any order of frames, after interrupts, and within bounds."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tests.videos_for_tests import number_in, numbered_frame, write_video

from segany.core.arrays import BoolArray, PixelArray
from segany.core.errors import OutputError
from segany.core.frame_result import FrameResult
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.core.progress import ProgressEvent
from segany.data.formats.track_formats import davis_palette
from segany.data.formats.track_writer import TRACK_FORMATS, TrackWriter
from segany.imaging.frames import open_frames
from segany.imaging.visualize.draw import draw_tracked
from segany.imaging.visualize.style import TINT, object_color

FRAMES = 6
SIZE_HW = 32, 64


def mask_at(frame: int, object_id: int) -> BoolArray:
    """A rectangle that moves; object 2 is hidden in frames 2 and 3."""
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    if object_id != 2 or frame not in (2, 3):
        mask[4 * object_id : 4 * object_id + 10, 5 * frame : 5 * frame + 12] = True
    return mask


def result_at(frame: int, ids: tuple[int, ...] = (1, 2), scores: tuple[float, ...] | None = None) -> FrameResult:
    masks = np.stack([mask_at(frame, object_id) for object_id in ids])
    given = scores or tuple(3.0 if mask.any() else -3.0 for mask in masks)
    return FrameResult.from_masks(frame, ids, masks, given)


def frames_of(count: int = FRAMES, size_hw: tuple[int, int] = SIZE_HW) -> list[PixelArray]:
    return [numbered_frame(number, size_hw) for number in range(count)]


def write(out: Path, formats: tuple[str, ...], order=range(FRAMES), source=None, **options) -> TrackWriter:
    with open_frames(frames_of() if source is None else source) as frames:
        with TrackWriter(frames, out, "clip", formats, **options) as writer:
            for frame in order:
                writer.add(result_at(frame))
        return writer


def shown(path: Path) -> list[PixelArray]:
    with open_frames(path) as source:
        return [source.read(index) for index in range(source.count)]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def decoded(rle: dict) -> BoolArray:
    return coco_mask.decode(rle).astype(np.bool_)


ORDERS = {"forward": range(FRAMES), "backward": range(FRAMES - 1, -1, -1), "both": [3, 4, 5, 3, 2, 1, 0]}


@pytest.mark.parametrize("order", ORDERS)
def test_sav(tmp_path: Path, order: str) -> None:
    writer = write(tmp_path, ("sav",), ORDERS[order], prompted={2: 1})
    assert writer.files == {"sav": [tmp_path / "clip_sav.json"]}
    content = json.loads((tmp_path / "clip_sav.json").read_text())
    masklet = content.pop("masklet")
    assert [[decoded(rle).tolist() for rle in frame] for frame in masklet] == [
        [mask_at(frame, 1).tolist(), mask_at(frame, 2).tolist()] for frame in range(FRAMES)
    ]
    assert content == {
        "video_id": "clip",
        "video_duration": FRAMES / 24,
        "video_frame_count": 6.0,
        "video_height": 32.0,
        "video_width": 64.0,
        "video_resolution": 2048.0,
        "masklet_id": [1, 2],
        "masklet_size_rel": [120 / 2048, 120 / 2048],
        "masklet_size_abs": [120.0, 120.0],
        "masklet_size_bucket": ["small", "small"],
        "masklet_visibility_changes": [0, 2],
        "masklet_first_appeared_frame": [0, 0],
        "masklet_frame_count": [6, 6],
        "masklet_edited_frame_count": [0, 1],
        "masklet_type": ["manual", "manual"],
        "masklet_stability_score": None,
        "masklet_num": 2,
    }


@pytest.mark.parametrize("order", ORDERS)
def test_coco_video(tmp_path: Path, order: str) -> None:
    write(tmp_path, ("coco-video",), ORDERS[order])
    content = json.loads((tmp_path / "clip_coco_video.json").read_text())
    (video,) = content["videos"]
    assert (video["length"], video["height"], video["width"]) == (6, 32, 64)
    assert video["file_names"][:2] == ["clip/00000.jpg", "clip/00001.jpg"]
    first, second = content["annotations"]
    assert [item["object"] for item in (first, second)] == [1, 2]
    assert [np.array_equal(decoded(rle), mask_at(i, 1)) for i, rle in enumerate(first["segmentations"])] == [True] * 6
    assert first["bboxes"][1] == [5, 4, 12, 10]
    assert first["areas"] == [120] * 6
    for field in ("segmentations", "bboxes", "areas"):
        assert [item is None for item in second[field]] == [False, False, True, True, False, False]
    assert second["scores"] == [3, 3, -3, -3, 3, 3]


def test_categories_of_objects_are_in_coco_video(tmp_path: Path) -> None:
    """An object has the category of its latest frame that has one; objects without one have "object"."""
    dog, cat = Category(3, "dog", "animal"), Category(7, "cat", "animal")

    def written(*frames: Instances) -> tuple[list, list]:
        with open_frames(frames_of()) as source, TrackWriter(source, tmp_path, "clip", ("coco-video",)) as writer:
            for frame, instances in enumerate(frames):
                writer.add(FrameResult(frame, instances))
        content = json.loads((tmp_path / "clip_coco_video.json").read_text())
        return [item["category_id"] for item in content["annotations"]], content["categories"]

    plain = result_at(0).instances
    categories = [
        {"id": 3, "name": "dog", "supercategory": "animal"},
        {"id": 7, "name": "cat", "supercategory": "animal"},
    ]
    other = {"id": 1, "name": "object", "supercategory": "object"}
    assert written(plain) == ([1, 1], [other])
    assert written(plain.with_categories([7, 3], [dog, cat])) == ([7, 3], categories)
    assert written(plain.with_categories([3, 3], [dog]), plain.with_categories([-1, 7], [cat])) == ([3, 7], categories)
    assert written(plain.with_categories([3, -1], [dog])) == ([3, 1], [other, categories[0]])
    assert written(plain.with_categories([0, -1], [Category(0, "object")])) == (
        [0, 0],
        [{"id": 0, "name": "object", "supercategory": ""}],
    )


def test_a_later_result_replaces_that_of_the_same_object(tmp_path: Path) -> None:
    with open_frames(frames_of()) as source, TrackWriter(source, tmp_path, "clip", ("npz", "masks-png")) as writer:
        writer.add(result_at(1, (2, 1)))
        writer.add(FrameResult.from_masks(1, (2, 5), np.stack([mask_at(4, 2), mask_at(5, 5)]), [7.0, 8.0]))
    with np.load(tmp_path / "clip_tracks.npz") as arrays:
        assert arrays["object_ids"].tolist() == [1, 2, 5]
        assert arrays["scores"].tolist() == [[3, 7, 8]]
        assert np.array_equal(arrays["masks"], [[mask_at(1, 1), mask_at(4, 2), mask_at(5, 5)]])
    with Image.open(tmp_path / "clip_masks/00001.png") as picture:
        assert set(np.unique(picture)) == {0, 1, 2, 5}


def test_instances_without_scores_can_be_written(tmp_path: Path) -> None:
    with (
        open_frames(frames_of()) as source,
        TrackWriter(source, tmp_path, "clip", ("coco-video", "masks-png")) as writer,
    ):
        writer.add(FrameResult(0, Instances.from_masks(mask_at(0, 1), object_ids=[1])))
    content = json.loads((tmp_path / "clip_coco_video.json").read_text(), parse_constant=pytest.fail)
    assert content["annotations"][0]["scores"][0] is None
    assert content["annotations"][0]["areas"][0] == 120


def test_frames_without_results(tmp_path: Path) -> None:
    write(tmp_path, ("sav", "coco-video", "npz"), [2, 3])
    sav = json.loads((tmp_path / "clip_sav.json").read_text())
    assert [decoded(frame[0]).any() for frame in sav["masklet"]] == [False, False, True, True, False, False]
    assert sav["masklet_frame_count"] == [2, 2]
    assert sav["masklet_first_appeared_frame"] == [2, 0]
    coco = json.loads((tmp_path / "clip_coco_video.json").read_text())
    assert [item is None for item in coco["annotations"][0]["scores"]] == [True, True, False, False, True, True]
    with np.load(tmp_path / "clip_tracks.npz") as arrays:
        assert arrays["frames"].tolist() == [2, 3]


@pytest.mark.parametrize("order", ORDERS)
def test_npz(tmp_path: Path, order: str) -> None:
    write(tmp_path, ("npz",), ORDERS[order])
    with np.load(tmp_path / "clip_tracks.npz") as arrays:
        assert arrays["frames"].tolist() == list(range(FRAMES))
        assert arrays["object_ids"].tolist() == [1, 2]
        assert arrays["scores"].tolist()[2] == [3, -3]
        expected = np.array([[mask_at(frame, 1), mask_at(frame, 2)] for frame in range(FRAMES)])
        assert arrays["masks"].dtype == np.bool_
        assert np.array_equal(arrays["masks"], expected)


def test_an_object_that_comes_later(tmp_path: Path) -> None:
    with open_frames(frames_of()) as frames, TrackWriter(frames, tmp_path, "clip", ("npz", "sav")) as writer:
        writer.add(result_at(0, (4,)))
        writer.add(result_at(1, (4, 1)))
    with np.load(tmp_path / "clip_tracks.npz") as arrays:
        assert arrays["object_ids"].tolist() == [1, 4]
        assert np.isnan(arrays["scores"]).tolist() == [[True, False], [False, False]]
        assert not arrays["masks"][0, 0].any()
        assert np.array_equal(arrays["masks"][1, 0], mask_at(1, 1))


def test_label_pictures(tmp_path: Path) -> None:
    write(tmp_path, ("masks-png",))
    assert names(tmp_path) == [f"clip_masks/0000{frame}.png" for frame in range(FRAMES)]
    with Image.open(tmp_path / "clip_masks/00001.png") as picture:
        assert picture.mode == "P"
        labels = np.asarray(picture)
        palette = np.array(picture.getpalette()).reshape(-1, 3)
    expected = np.where(mask_at(1, 2), 2, np.where(mask_at(1, 1), 1, 0))
    assert np.array_equal(labels, expected)
    assert palette[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]


def test_the_palette_is_that_of_davis() -> None:
    palette = davis_palette()
    assert [palette[i].tolist() for i in (7, 8, 9, 255)] == [[128] * 3, [64, 0, 0], [192, 0, 0], [224, 224, 192]]


def test_the_better_object_has_the_pixels_of_both(tmp_path: Path) -> None:
    overlap = mask_at(1, 1) & mask_at(1, 2)
    for scores, winner in (((2.0, 1.0), 1), ((1.0, 2.0), 2), ((1.0, 1.0), 2)):
        with open_frames(frames_of()) as frames, TrackWriter(frames, tmp_path, "clip", ("masks-png",)) as writer:
            writer.add(result_at(1, scores=scores))
        with Image.open(tmp_path / "clip_masks/00001.png") as picture:
            assert set(np.asarray(picture)[overlap].tolist()) == {winner}


@pytest.mark.parametrize("object_id", [0, 256])
def test_ids_that_fit_no_palette(tmp_path: Path, object_id: int) -> None:
    with open_frames(frames_of()) as frames:
        writer = TrackWriter(frames, tmp_path, "clip", ("masks-png",))
        result = FrameResult.from_masks(0, (object_id,), np.ones((1, *SIZE_HW), np.bool_), [1.0])
        with pytest.raises(OutputError, match=f"from 1 to 255, and one is {object_id}"):
            writer.add(result)


def test_pictures_are_named_after_images(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / f"in/shot{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(numbered_frame(number)).save(path)
    write(tmp_path / "out", ("masks-png", "coco-video"), [0, 1], tmp_path / "in")
    assert names(tmp_path / "out") == ["clip_coco_video.json", "clip_masks/shot0.png", "clip_masks/shot1.png"]
    coco = json.loads((tmp_path / "out/clip_coco_video.json").read_text())
    assert coco["videos"][0]["file_names"] == ["clip/shot0.png", "clip/shot1.png"]


@pytest.mark.parametrize("order", ORDERS)
def test_overlay_is_in_the_order_of_frames(tmp_path: Path, order: str) -> None:
    source = write_video(tmp_path / "in.mp4", FRAMES, rate=12, size_hw=(64, 64))
    with open_frames(source) as frames, TrackWriter(frames, tmp_path, "clip", ("overlay",)) as writer:
        for frame in ORDERS[order]:
            mask = np.zeros((1, 64, 64), np.bool_)
            mask[0, 40:60, 5 + 5 * frame : 25 + 5 * frame] = True
            writer.add(FrameResult.from_masks(frame, (3,), mask, [1.0]))
    assert names(tmp_path) == ["clip_overlay.mp4", "in.mp4"]
    pictures = shown(tmp_path / "clip_overlay.mp4")
    assert [number_in(picture) for picture in pictures] == list(range(FRAMES))
    tinted = np.array(object_color(2)) * TINT + 128 * (1 - TINT)
    for frame, picture in enumerate(pictures):
        assert np.abs(picture[50, 15 + 5 * frame] - tinted).max() < 20, frame
    with av.open(str(tmp_path / "clip_overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 12
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_overlay_of_odd_sizes_and_without_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    source = frames_of(3, (33, 65))
    with open_frames(source) as frames, TrackWriter(frames, tmp_path, "clip", ("overlay",)) as writer:
        for frame in range(3):
            writer.add(FrameResult.from_masks(frame, (1,), np.zeros((1, 33, 65), np.bool_), [1.0]))
    pictures = shown(tmp_path / "clip_overlay.mp4")
    assert pictures[0].shape == (34, 66, 3)
    assert [number_in(picture[:, :64]) for picture in pictures] == [0, 1, 2]


def test_colors_survive_encoding(tmp_path: Path) -> None:
    """They are written as BT.709 and say so, and are read as what they say."""
    colors = np.array([(20, 130, 255), (255, 150, 0), (185, 70, 255), (0, 205, 200)])
    frame = np.repeat(np.repeat(colors[None].astype(np.uint8), 16, axis=1), 64, axis=0)
    with open_frames([frame]) as frames, TrackWriter(frames, tmp_path, "clip", ("overlay",)) as writer:
        writer.add(FrameResult.from_masks(0, (), np.zeros((0, 64, 64), np.bool_), []))
    with av.open(str(tmp_path / "clip_overlay.mp4")) as container:
        written = next(container.decode(video=0))
    luma = 16 + 219 / 255 * colors @ (0.2126, 0.7152, 0.0722)
    assert np.abs(written.to_ndarray()[32, 8:64:16] - luma).max() <= 3
    assert written.colorspace == 1
    if int(av.__version__.split(".")[0]) >= 18:  # 16 takes all for BT.601
        (picture,) = shown(tmp_path / "clip_overlay.mp4")
        assert np.abs(picture[32, 8::16].astype(int) - colors).max() <= 6


def test_a_frame_that_was_left_out_leaves_a_pause(tmp_path: Path) -> None:
    write(tmp_path, ("overlay",), [1, 2, 5])
    with av.open(str(tmp_path / "clip_overlay.mp4")) as container:
        assert [round(24 * frame.time) for frame in container.decode(video=0)] == [0, 1, 4]


def test_overlay_of_a_stream_is_drawn_as_it_comes(tmp_path: Path) -> None:
    with open_frames(iter(frames_of())) as frames, TrackWriter(frames, tmp_path, "clip", ("overlay",)) as writer:
        for frame in range(4):
            writer.add(result_at(frame), frames.read(frame))
        writer.add(result_at(2), None)  # cannot be read again
    assert [picture.shape for picture in shown(tmp_path / "clip_overlay.mp4")] == [(32, 64, 3)] * 4


def test_given_pixels_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_frames(frames_of()) as frames, TrackWriter(frames, tmp_path, "clip", ("overlay",)) as writer:
        pixels = [frames.read(frame) for frame in range(2)]
        monkeypatch.setattr(frames, "read", lambda index: pytest.fail("read again"))
        for frame in range(2):
            writer.add(result_at(frame), pixels[frame])
    assert len(shown(tmp_path / "clip_overlay.mp4")) == 2


def test_progress_of_an_overlay_drawn_at_the_end(tmp_path: Path) -> None:
    told: list[ProgressEvent] = []
    write(tmp_path, ("overlay",), [1, 0], progress=told.append)
    assert told == [ProgressEvent("overlay", done, 2, "frames") for done in (1, 2)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_after_an_interrupt_the_files_hold_what_was_done(
    tmp_path: Path, error: type[BaseException], order: list[int]
) -> None:
    def stopped() -> Iterator[int]:
        yield from order
        raise error

    with pytest.raises(error):
        write(tmp_path, tuple(TRACK_FORMATS), stopped())
    assert names(tmp_path) == [
        "clip_coco_video.json",
        *(f"clip_masks/0000{frame}.png" for frame in range(3)),
        "clip_overlay.mp4",
        "clip_sav.json",
        "clip_tracks.npz",
    ]
    assert len(shown(tmp_path / "clip_overlay.mp4")) == 3
    assert json.loads((tmp_path / "clip_sav.json").read_text())["masklet_frame_count"] == [3, 3]


def test_an_interrupt_while_finishing_leaves_no_half_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, ("npz", "overlay"))
    assert names(tmp_path) == []


def test_nothing_is_written_of_nothing(tmp_path: Path) -> None:
    writer = write(tmp_path, tuple(TRACK_FORMATS), [])
    assert names(tmp_path) == []
    assert writer.files == {item: [] for item in TRACK_FORMATS}


def test_a_full_disk_is_told_and_leaves_no_half_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"clip_overlay\.mp4 could not be written: there is no space left"):
        write(tmp_path, ("overlay", "sav", "npz"))
    assert names(tmp_path) == []


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "clip_overlay.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match="one of the inputs"):
        write(tmp_path, ("overlay",), keep={(tmp_path / "clip_overlay.mp4").resolve()})
    assert (tmp_path / "clip_overlay.mp4").read_bytes() == b"mine"


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no format 'gif'\. Known formats: overlay, masks-png, sav"):
        write(tmp_path, ("gif",))
    with pytest.raises(OutputError, match=r"masks of frame 0 are \[32, 64\] .*but the video is \[40, 64\]"):
        write(tmp_path, ("sav",), [0], frames_of(2, (40, 64)))


def test_memory_does_not_grow_with_dense_masks(tmp_path: Path) -> None:
    """What is kept of a frame is a small part of its masks."""
    import tracemalloc

    size_hw, count = (400, 600), 60
    mask = np.zeros((1, *size_hw), np.bool_)
    mask[0, 100:300, 100:300] = True

    def black() -> Iterator[PixelArray]:
        for _ in range(count):
            yield np.zeros((*size_hw, 3), np.uint8)

    with open_frames(black()) as frames, TrackWriter(frames, tmp_path, "clip", ("sav", "npz")) as writer:
        tracemalloc.start()
        for frame in range(count):
            writer.add(FrameResult.from_masks(frame, (1,), mask.copy(), [1.0]))
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 3 * mask.nbytes  # of 60


def test_colors_belong_to_ids() -> None:
    image = np.full((60, 60, 3), 128, np.uint8)
    masks = np.zeros((2, 60, 60), np.bool_)
    masks[0, 5:25, 5:55], masks[1, 35:55, 5:55] = True, True
    both = draw_tracked(image, masks, [1, 5])
    alone = draw_tracked(image, masks[1:], [5])
    assert both[45, 50].tolist() == alone[45, 50].tolist()
    assert both[15, 50].tolist() != both[45, 50].tolist()
    assert (image == 128).all()
