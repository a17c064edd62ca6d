"""Writing what is tracked while it is being tracked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from segany.core.arrays import PixelArray
from segany.core.errors import OutputError, SeganyError
from segany.core.files import replacing, write_file
from segany.core.frame_result import FrameResult
from segany.data.formats.track_formats import frame_rate_of, label_png, to_coco_video, to_sav, write_npz
from segany.data.formats.tracks import Tracks
from segany.data.formats.video_file import VideoWriter, new_video
from segany.data.formats.writing import check_not_kept, json_bytes
from segany.imaging.frames import FrameSource
from segany.imaging.frames.pyav import import_av
from segany.imaging.visualize.draw import draw_tracked

TRACK_FORMATS = {
    "overlay": "_overlay.mp4",
    "masks-png": "_masks",
    "sav": "_sav.json",
    "coco-video": "_coco_video.json",
    "npz": "_tracks.npz",
}
"""What tracks can be written as, and how the names of those files or folders end."""

DEFAULT_TRACK_FORMATS = ("overlay", "masks-png")
"""A video to look at, and masks for any program."""

RenderProgress: TypeAlias = Callable[[int, int], None]
"""Told how many frames of how many are drawn."""


class TrackWriter:
    """Writes the results of tracking in some formats. Use it in a `with` block.

    Results may come in any order; of several for the same object in the same frame the last counts. Masks are
    kept run-length encoded. Files take their places when the block ends, also when it ends with an error or an
    interrupt: they hold what was done until then. Pictures of `masks-png` are written at once.

    The overlay is encoded as results come as long as their frames ascend. Once one does not, it is drawn at
    the end instead, from frames that are read again; from a source that cannot go back, it keeps to the frames
    that came in order.
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
        progress: RenderProgress | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            source: the video; it must stay open until the block ends.
            folder: where to; made when it is missing.
            name: what the names of the files begin with.
            formats: keys of `TRACK_FORMATS`.
            overlay: where the overlay goes, if not into the folder.
            keep: resolved paths that must not be overwritten, such as the video itself.
            prompted: on how many frames each object has prompts; `sav` tells of it.
            progress: told about an overlay that is drawn at the end.

        Raises:
            OutputError: there is no such format, or a file would replace one of `keep`.
            MissingExtraError: an overlay is wanted, and PyAV is not installed.
        """
        unknown = [item for item in formats if item not in TRACK_FORMATS]
        if unknown:
            raise OutputError(f"There is no format {unknown[0]!r}. Known formats: {', '.join(TRACK_FORMATS)}.")
        self._source = source
        self._tracks = Tracks(source.size_hw)
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
        # What ended the block matters more than what finishing makes of it.
        with contextlib.suppress(*([SeganyError] if error is not None else [])):
            self.close()

    def add(self, result: FrameResult, pixels: PixelArray | None = None) -> None:
        """Take the result of a frame.

        Args:
            result: the masks.
            pixels: uint8 [H, W, 3], the frame; read from the source when left out and needed.

        Raises:
            OutputError: the masks are not of the size of the video, an object id does not fit into a format,
                or a file cannot be written.
        """
        self._tracks.add(result)
        for sink in self._sinks.values():
            sink.add(result.frame, self._tracks, pixels)

    def close(self) -> None:
        """Finish all files; of nothing there are no files. A format that fails does not stop the others.

        Raises:
            OutputError: a file could not be written.
        """
        sinks, self._sinks = self._sinks, {}
        failures = []
        try:
            for item, sink in sinks.items():
                try:
                    self.files[item] = sink.finish(self._tracks) if self._tracks.frames else []
                except SeganyError as error:
                    failures.append(error)
        finally:
            for sink in sinks.values():
                sink.abandon()
        if failures:
            raise failures[0]


class _Sink(Protocol):
    """One format while it is being written."""

    def add(self, frame: int, tracks: Tracks, pixels: PixelArray | None) -> None: ...

    def finish(self, tracks: Tracks) -> list[Path]:
        """Complete the files and tell their names."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind of what was not finished."""
        ...


class _LabelSink:
    """A picture a frame, written at once."""

    def __init__(self, folder: Path, source: FrameSource, keep: Collection[Path]) -> None:
        self._folder, self._source, self._keep = folder, source, keep

    def add(self, frame: int, tracks: Tracks, pixels: PixelArray | None) -> None:  # noqa: ARG002
        path = self._path(frame)
        check_not_kept(path, self._keep)
        write_file(path, label_png(tracks.objects(frame), tracks.size_hw))

    def finish(self, tracks: Tracks) -> list[Path]:
        return [self._path(frame) for frame in tracks.frames]

    def abandon(self) -> None:
        pass

    def _path(self, frame: int) -> Path:
        return self._folder / f"{self._source.frame_name(frame)}.png"


class _FileSink:
    """One file that is written at the end."""

    def __init__(self, item: str, path: Path, source: FrameSource, name: str, prompted: Mapping[int, int]) -> None:
        self._item, self._path, self._source, self._name, self._prompted = item, path, source, name, prompted

    def add(self, frame: int, tracks: Tracks, pixels: PixelArray | None) -> None:
        pass

    def finish(self, tracks: Tracks) -> list[Path]:
        if self._item == "npz":
            with replacing(self._path) as temporary:
                write_npz(tracks, temporary)
            return [self._path]
        return [write_file(self._path, json_bytes(self._content(tracks)))]

    def abandon(self) -> None:
        pass

    def _content(self, tracks: Tracks) -> dict[str, Any]:
        if self._item == "sav":
            return to_sav(tracks, self._source, self._name, self._prompted)
        return to_coco_video(tracks, self._source, self._name)


class _OverlaySink:
    """The video with its masks drawn over it."""

    def __init__(self, path: Path, source: FrameSource, progress: RenderProgress | None) -> None:
        import_av()  # to know now, and not after the first frame was tracked
        self._path, self._source, self._progress = path, source, progress
        self._open = contextlib.ExitStack()
        self._writer: VideoWriter | None = None
        self._first = self._last = -1
        self._is_ordered = True

    def add(self, frame: int, tracks: Tracks, pixels: PixelArray | None) -> None:
        if not self._is_ordered:
            return
        if self._writer is None:
            self._writer = self._open.enter_context(self._new_video())
            self._first = frame
        elif frame <= self._last:
            if self._source.can_seek:
                self._is_ordered = False
                self.abandon()
            return
        self._write(self._writer, frame, tracks, pixels)
        self._last = frame

    def finish(self, tracks: Tracks) -> list[Path]:
        if self._is_ordered:
            self._open.close()
            return [self._path]
        frames = tracks.frames
        self._first = frames[0]
        with self._new_video() as writer:
            for done, frame in enumerate(frames, start=1):
                self._write(writer, frame, tracks, None)
                if self._progress is not None:
                    self._progress(done, len(frames))
        return [self._path]

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer = None
            with contextlib.suppress(_Abandoned), self._open:
                raise _Abandoned

    def _new_video(self) -> contextlib.AbstractContextManager[VideoWriter]:
        return new_video(self._path, self._source.size_hw, frame_rate_of(self._source), self._source.pixel_aspect)

    def _write(self, writer: VideoWriter, frame: int, tracks: Tracks, pixels: PixelArray | None) -> None:
        picture = self._source.read(frame) if pixels is None else pixels
        writer.write(draw_tracked(picture, tracks.masks(frame), list(tracks.objects(frame))), frame - self._first)


class _Abandoned(Exception):  # noqa: N818
    """Makes the `with` block of a file end without the file."""
