"""`segany track`: track objects through a video, from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segany.cli.inputs import check_out_folder, parse_formats
from segany.cli.pixel_options import BandsOption, PageOption, RangeOption, parse_pixel_options
from segany.cli.stop_signal import StopSignal
from segany.cli.track_prompts import parse_track_prompts
from segany.cli.track_report import TrackReporter
from segany.core.errors import OutputError, VideoError
from segany.core.extras import import_av
from segany.core.files import path_errors
from segany.data.formats.track_formats import check_palette_ids
from segany.data.formats.track_writer import DEFAULT_TRACK_FORMATS, TRACK_FORMATS, TrackWriter
from segany.data.frame_prompts import FRAME_PROMPTS_EXAMPLE, FramePrompts
from segany.imaging.frames import FrameSource, open_frames
from segany.imaging.image import DEFAULT_MAX_PIXELS
from segany.predict.frame_schedule import Direction
from segany.predict.track_prompts import track_prompts

if TYPE_CHECKING:
    from segany.predict.file_video_session import FileVideoSession

DEFAULT_VIDEO_MODEL = "sam2.1_hiera_tiny"

EPILOG = f"""
A prompts file describes several objects: `{FRAME_PROMPTS_EXAMPLE}`. A mask is given as
`{{"frame": 0, "mask": "rough.png"}}`; its path is relative to the folder of the prompts file. Each label of a label map
is an object, and `"label": 2` selects one.
"""


def track(
    video: Annotated[
        str, typer.Argument(help="A video file, a folder of images, or the number of a camera.", show_default=False)
    ],
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FRAME:X,Y[,LABEL][@ID]",
            help="A point: foreground (label 1, the default) or background (0). Repeatable.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="FRAME:X0,Y0,X1,Y1[@ID]", help="A box around an object. Repeatable.")
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="FRAME:FILE[@ID]", help="A mask image or label map of the size of the video. Repeatable."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A JSON file with prompts on frames, instead of the options; see below.")
    ] = None,
    direction: Annotated[Direction, typer.Option(help="Direction in which to track from the first frame.")] = "forward",
    start: Annotated[
        int | None, typer.Option(min=0, help="The first frame to track.", show_default="the first one with a prompt")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    model: Annotated[
        str, typer.Option(help="A name from `segany models`, or the path of a checkpoint.")
    ] = DEFAULT_VIDEO_MODEL,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="CUDA if available")
    ] = None,
    motion_aware: Annotated[
        bool, typer.Option("--motion-aware", help="Select masks and memories by a motion model (SAMURAI).")
    ] = False,
    min_mask_region_area: Annotated[
        int, typer.Option(min=0, help="Remove islands and holes with fewer pixels from masks.")
    ] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder of the results, created if it is missing; or an .mp4 file for the overlay.")
    ] = Path("out"),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help=f"Any of {', '.join(TRACK_FORMATS)}; separated by commas, or repeated.",
            show_default=",".join(DEFAULT_TRACK_FORMATS),
        ),
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse frames with more pixels.")] = DEFAULT_MAX_PIXELS,
    value_range: RangeOption = None,
    bands: BandsOption = None,
    page: PageOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON at the end, and nothing else.")
    ] = False,
) -> None:
    """Track objects through a video, from points, boxes and masks on any of its frames.

    Frames are numbered from 0; coordinates are pixels of the video, x then y. Prompts with the same @ID belong to
    one object; the default id is 1. After Ctrl-C the files hold the results until then.
    """
    pixels = parse_pixel_options(value_range, bands, page)
    wanted = parse_track_prompts(point or (), box or (), mask or (), prompts).by_label(max_pixels)
    target = _Target.chosen(video, out, formats)
    if "overlay" in target.formats:
        import_av()
    if "masks-png" in target.formats:
        check_palette_ids(wanted.object_ids)
    keep = _inputs(video, wanted, prompts)
    with open_frames(_source(video), max_pixels=max_pixels, pixel_options=pixels) as source:
        given = wanted.read(source, max_pixels)
        if start is not None and source.count is not None and start >= source.count:
            raise VideoError(f"--start {start}: there is no such frame. {source.name} has {source.count}, from 0.")
        session = open_session(
            source, model, device, motion_aware=motion_aware, min_mask_region_area=min_mask_region_area
        )
        first = wanted.first_frame if start is None else start
        reporter = TrackReporter(video, source, _expected(source, first, direction, max_frames), as_json=as_json)
        # The writer is inside: it may read the frames again after the last result.
        with session as running, reporter, StopSignal() as stop:
            writer = TrackWriter(
                source, target.folder, target.name, target.formats,
                overlay=target.overlay, keep=keep, prompted=wanted.prompted, progress=reporter.drawing,
            )  # fmt: skip
            with writer:
                for result in track_prompts(running, given, start=start, direction=direction, max_frames=max_frames):
                    writer.add(result)
                    reporter.tracked(result)
                    if stop.is_set:
                        break
        reporter.summarize(writer.files, is_stopped=stop.is_set)
        if stop.is_set:
            raise KeyboardInterrupt


def open_session(
    source: FrameSource, model: str, device: str | None, *, motion_aware: bool, min_mask_region_area: int
) -> FileVideoSession:
    """Load the model and open the video with it."""
    import segany

    config = segany.VideoConfig(motion_aware=motion_aware, min_mask_region_area=min_mask_region_area)
    return segany.VideoPredictor(segany.load(model, device=device), config).open(source)


@dataclass(frozen=True)
class _Target:
    """The output files and formats."""

    folder: Path
    name: str
    overlay: Path | None
    formats: tuple[str, ...]

    @classmethod
    def chosen(cls, video: str, out: Path, formats: list[str] | None) -> _Target:
        """Interpret --out and --format."""
        is_file = out.suffix.lower() == ".mp4" and not out.is_dir()
        default = ("overlay",) if is_file else DEFAULT_TRACK_FORMATS
        chosen = default if formats is None else parse_formats(",".join(formats), TRACK_FORMATS)
        if is_file and "overlay" not in chosen:
            raise OutputError(f"--out {out} is a video, but --format has no overlay. Give a folder, or add overlay.")
        folder = out.parent if is_file else out
        check_out_folder(folder, "--out")
        name = out.stem if is_file else _name_of(video)
        return cls(folder, name, out if is_file else None, chosen)


def _source(video: str) -> str | int:
    """The path, or the number of a camera: digits that do not name a file."""
    return int(video) if video.isascii() and video.isdigit() and not Path(video).exists() else video


def _name_of(video: str) -> str:
    """Return the name of the video, the prefix of output files."""
    source = _source(video)
    if isinstance(source, int):
        return f"camera{source}"
    with path_errors(Path(video), VideoError):
        path = Path(video).resolve()  # of `.` and `..` too
        return path.name if path.is_dir() else path.stem


def _inputs(video: str, wanted: FramePrompts, prompts: Path | None) -> set[Path]:
    """Return the resolved paths of the inputs, which must not be overwritten."""
    paths = [Path(video), *wanted.mask_files, *([prompts] if prompts else [])]
    with path_errors(Path(video), VideoError):
        return {path.resolve() for path in paths}


def _expected(source: FrameSource, first: int, direction: Direction, max_frames: int | None) -> int | None:
    """Return the number of frames that will have results; None if it is unknown."""
    count = source.count
    if count is None:
        return max_frames
    frames = {"forward": count - first, "backward": first + 1, "both": count}[direction]
    return frames if max_frames is None else min(frames, max_frames)
