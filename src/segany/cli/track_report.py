"""The progress bar of `segany track` on stderr, and its summary on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType

import typer
from rich.console import Console
from rich.text import Text

from segany.cli.work_bar import work_bar
from segany.core.errors import OutputError
from segany.core.frame_result import FrameResult
from segany.core.progress import ProgressEvent
from segany.imaging.frames import FrameSource


class TrackReporter:
    """Reports on tracking. Use it in a `with` block; there is a bar only if stderr is a terminal."""

    def __init__(self, video: str, source: FrameSource, expected: int | None, *, as_json: bool) -> None:
        """Prepare to report on a video.

        Args:
            video: the video as the user gave it.
            source: its frames.
            expected: how many frames will have results; None if that is unknown.
            as_json: print the summary as one line of JSON.
        """
        self._video, self._source, self._expected, self._as_json = video, source, expected, as_json
        self._frames: set[int] = set()
        self._visible: dict[int, int] = {}
        self._seconds = 0.0
        self._began = perf_counter()
        self._progress = work_bar()
        self._task = self._progress.add_task("tracking", total=expected, count="")

    def __enter__(self) -> TrackReporter:
        self._progress.start()
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._warn()
        if error is not None and not isinstance(error, OutputError) and self._frames:
            self._tell_errors(f"The files hold the {len(self._frames)} frames that were tracked before.")

    def tracked(self, result: FrameResult) -> None:
        """A frame is tracked."""
        if result.frame not in self._frames:
            self._frames.add(result.frame)
            for object_id, score in zip(result.object_ids, result.scores.tolist(), strict=True):
                self._visible[object_id] = self._visible.get(object_id, 0) + (score > 0)
        self._seconds = perf_counter() - self._began
        done = len(self._frames)
        of = "" if self._expected is None else f"/{self._expected}"
        self._progress.update(self._task, completed=done, count=f"{done}{of}  {self._rate:.1f} frames/s")

    def drawing(self, event: ProgressEvent) -> None:
        """A frame of the overlay is drawn, after tracking."""
        count = f"{event.done}/{event.total}"
        self._progress.update(self._task, description="drawing", completed=event.done, total=event.total, count=count)

    def summarize(self, files: Mapping[str, Sequence[Path]], *, is_stopped: bool) -> None:
        """Print the summary, after all files are written."""
        height, width = self._source.size_hw
        if self._as_json:
            facts = {
                "video": self._video,
                "size_hw": [height, width],
                "frames": len(self._frames),
                "objects": [{"object": item, "visible_frames": count} for item, count in sorted(self._visible.items())],
                "seconds": round(self._seconds, 4),
                "frames_per_second": round(self._rate, 3),
                "interrupted": is_stopped,
                "warnings": self._source.warnings,
                "files": {name: [str(path) for path in paths] for name, paths in files.items()},
            }
            typer.echo(json.dumps(facts))
            return
        console = Console(highlight=False, soft_wrap=True)
        speed = f"{width} x {height}, {_counted(len(self._frames), 'frame')}, {self._rate:.1f} frames/s"
        console.print(Text.assemble((self._video, "bold"), f"  {speed}"))
        for object_id, count in sorted(self._visible.items()):
            console.print(f"  object {object_id}  visible in {_counted(count, 'frame')}")
        for paths in files.values():
            for path in paths[:1] if len(paths) == 1 else [paths[0].parent] if paths else []:
                console.print(Text(f"  {path}", style="cyan"))
        if is_stopped:
            self._tell_errors("Interrupted. The files hold what was tracked until then.")

    @property
    def _rate(self) -> float:
        return len(self._frames) / self._seconds if self._seconds else 0.0

    def _warn(self) -> None:
        for warning in self._source.warnings:
            self._tell_errors(Text.assemble(("warning: ", "bold yellow"), warning))

    def _tell_errors(self, line: str | Text) -> None:
        self._progress.console.print(line)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
