"""Writing the results of tracking while they come."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from segany.core.arrays import PixelArray
from segany.core.errors import OutputError, SeganyError
from segany.core.extras import import_av
from segany.core.files import replacing, write_file
from segany.core.frame_result import FrameResult
from segany.core.instances import Instances
from segany.core.progress import ProgressCallback, report
from segany.data.formats.track_formats import frame_rate_of, label_png, to_coco_video, to_sav, write_npz
from segany.data.formats.video_writer import VideoWriter, new_video
from segany.data.formats.writing import check_not_kept, json_bytes
from segany.imaging.frames import FrameSource
from segany.imaging.visualize.draw import draw_tracked

TRACK_FORMATS = {
    "overlay": "_overlay.mp4",
    "masks-png": "_masks",
    "sav": "_sav.json",
    "coco-video": "_coco_video.json",
    "npz": "_tracks.npz",
}
"""The formats of tracks, and the endings of the names of their files or folders."""

DEFAULT_TRACK_FORMATS = ("overlay", "masks-png")
"""A video for people, and masks for any program."""


class TrackWriter:
    """Writes the results of tracking in some formats. Use it in a `with` block.

    Results may come in any order; of several for the same object in the same frame the last counts. Their `Instances`
    are kept, which are run-length encoded already. Files are completed when the block ends, also when it ends with an
    error or an interrupt: they hold the results until then. Images of `masks-png` are written at once.

    The overlay is encoded as results come as long as their frame numbers ascend. Once one does not, the overlay is
    drawn at the end instead, from frames that are read again; from a source that cannot seek, it consists of the
    frames that came in order.
    """

    def __init__(
        self,
        source: FrameSource,
        folder: Path,
        name: str,
        formats: Sequence[str] = DEFAULT_TRACK_FORMATS,
        *,
        overlay: Path | None = None,
        keep: Collection[Path] = (),
        prompted: Mapping[int, int] | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            source: the video; it must stay open until the block ends.
            folder: the output folder; it is made if it is missing.
            name: the beginning of the names of the files.
            formats: keys of `TRACK_FORMATS`.
            overlay: the path of the overlay, if it is not in the folder.
            keep: resolved paths that must not be overwritten, such as the video itself.
            prompted: the number of frames with prompts, by object id, for `sav`.
            progress: called for each frame of an overlay that is drawn at the end, with the unit "frames".

        Raises:
            OutputError: there is no such format, or a file would replace one of `keep`.
            MissingExtraError: an overlay is wanted, and PyAV is not installed.
        """
        unknown = [item for item in formats if item not in TRACK_FORMATS]
        if unknown:
            raise OutputError(f"There is no format {unknown[0]!r}. Known formats: {', '.join(TRACK_FORMATS)}.")
        self._source = source
        self._frames: dict[int, Instances] = {}
        paths = {item: folder / f"{name}{TRACK_FORMATS[item]}" for item in formats}
        if overlay is not None and "overlay" in paths:
            paths["overlay"] = overlay
        for path in paths.values():
            check_not_kept(path, keep)
        self._sinks: dict[str, _Sink] = {}
        for item, path in paths.items():
            if item == "overlay":
                self._sinks[item] = _OverlaySink(path, source, progress)
            elif item == "masks-png":
                self._sinks[item] = _LabelSink(path, source, keep)
            else:
                self._sinks[item] = _FileSink(item, path, source, name, prompted or {})
        self.files: dict[str, list[Path]] = {item: [] for item in formats}
        """The files of each format, once the block has ended."""

    def __enter__(self) -> TrackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The error that ended the block matters more than one from finishing.
        with contextlib.suppress(*([SeganyError] if error is not None else [])):
            self.close()

    def add(self, result: FrameResult, pixels: PixelArray | None = None) -> None:
        """Write the result of a frame.

        Args:
            result: the objects of the frame.
            pixels: uint8 [H, W, 3], the frame; read from the source when left out and needed.

        Raises:
            OutputError: the masks are not of the size of the video, an object id does not fit into a format,
                or a file cannot be written.
        """
        if result.size_hw != self._source.size_hw:
            raise OutputError(
                f"The masks of frame {result.frame} are {list(result.size_hw)} (height, width), but the video is "
                f"{list(self._source.size_hw)}."
            )
        earlier = self._frames.get(result.frame)
        whole = result.sorted_by_id() if earlier is None else FrameResult(result.frame, earlier).updated(result)
        self._frames[result.frame] = whole.instances
        for sink in self._sinks.values():
            sink.add(whole, pixels)

    def close(self) -> None:
        """Complete all files; without results there are none. A format that fails does not stop the others.

        Raises:
            OutputError: a file could not be written.
        """
        sinks, self._sinks = self._sinks, {}
        failures = []
        try:
            for item, sink in sinks.items():
                try:
                    self.files[item] = sink.finish(dict(sorted(self._frames.items()))) if self._frames else []
                except SeganyError as error:
                    failures.append(error)
        finally:
            for sink in sinks.values():
                sink.abandon()
        if failures:
            raise failures[0]


class _Sink(Protocol):
    """One format while it is being written."""

    def add(self, result: FrameResult, pixels: PixelArray | None) -> None:
        """Take all objects of a frame, in ascending order of their ids."""
        ...

    def finish(self, frames: Mapping[int, Instances]) -> list[Path]:
        """Complete the files, given the objects of all frames in ascending order; returns the paths."""
        ...

    def abandon(self) -> None:
        """Remove what was not finished."""
        ...


class _LabelSink:
    """One label image per frame, written at once."""

    def __init__(self, folder: Path, source: FrameSource, keep: Collection[Path]) -> None:
        self._folder, self._source, self._keep = folder, source, keep

    def add(self, result: FrameResult, pixels: PixelArray | None) -> None:  # noqa: ARG002
        path = self._path(result.frame)
        check_not_kept(path, self._keep)
        write_file(path, label_png(result))

    def finish(self, frames: Mapping[int, Instances]) -> list[Path]:
        written = [self._path(frame) for frame in frames]
        # What an earlier run left of frames of this video, or of a longer one of the same name, is not of this run.
        known = {self._path(frame).name for frame in range(self._source.count or 0)}
        for path in self._folder.glob("*.png"):
            if path not in written and (path.name in known or path.stem.isdigit()):
                path.unlink(missing_ok=True)
        return written

    def abandon(self) -> None:
        pass

    def _path(self, frame: int) -> Path:
        return self._folder / f"{self._source.frame_name(frame)}.png"


class _FileSink:
    """One file that is written at the end."""

    def __init__(self, item: str, path: Path, source: FrameSource, name: str, prompted: Mapping[int, int]) -> None:
        self._item, self._path, self._source, self._name, self._prompted = item, path, source, name, prompted

    def add(self, result: FrameResult, pixels: PixelArray | None) -> None:
        pass

    def finish(self, frames: Mapping[int, Instances]) -> list[Path]:
        if self._item == "npz":
            with replacing(self._path) as temporary:
                write_npz(frames, self._source.size_hw, temporary)
            return [self._path]
        return [write_file(self._path, json_bytes(self._content(frames)))]

    def abandon(self) -> None:
        pass

    def _content(self, frames: Mapping[int, Instances]) -> dict[str, Any]:
        if self._item == "sav":
            return to_sav(frames, self._source, self._name, self._prompted)
        return to_coco_video(frames, self._source, self._name)


class _OverlaySink:
    """The video with its masks drawn over it."""

    def __init__(self, path: Path, source: FrameSource, progress: ProgressCallback | None) -> None:
        import_av()  # fails now, and not after the first frame was tracked
        self._path, self._source, self._progress = path, source, progress
        self._open = contextlib.ExitStack()
        self._writer: VideoWriter | None = None
        self._first = self._last = -1
        self._is_ordered = True

    def add(self, result: FrameResult, pixels: PixelArray | None) -> None:
        if not self._is_ordered:
            return
        if self._writer is None:
            self._writer = self._open.enter_context(self._new_video())
            self._first = result.frame
        elif result.frame <= self._last:
            if self._source.can_seek:
                self._is_ordered = False
                self.abandon()
            return
        self._write(self._writer, result, pixels)
        self._last = result.frame

    def finish(self, frames: Mapping[int, Instances]) -> list[Path]:
        if self._is_ordered:
            self._open.close()
            return [self._path]
        self._first = next(iter(frames))
        with self._new_video() as writer:
            for done, (frame, instances) in enumerate(frames.items(), start=1):
                self._write(writer, FrameResult(frame, instances), None)
                report(self._progress, "overlay", done, len(frames), "frames")
        return [self._path]

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer = None
            with contextlib.suppress(_Abandoned), self._open:
                raise _Abandoned

    def _new_video(self) -> contextlib.AbstractContextManager[VideoWriter]:
        return new_video(self._path, self._source.size_hw, frame_rate_of(self._source), self._source.pixel_aspect)

    def _write(self, writer: VideoWriter, result: FrameResult, pixels: PixelArray | None) -> None:
        picture = self._source.read(result.frame) if pixels is None else pixels
        writer.write(draw_tracked(picture, result.masks, result.object_ids), result.frame - self._first)


class _Abandoned(Exception):  # noqa: N818
    """Ends the `with` block of a file without the file."""
