"""The folder of a training: what it is, where it ran, how it went, and what it learned."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from segany.core.arrays import PixelArray
from segany.core.errors import OutputError, TrainingError
from segany.core.extras import import_extra
from segany.core.files import path_errors, write_error, write_file
from segany.core.version import __version__
from segany.data.formats.writing import png_bytes
from segany.train.curves import draw_curves
from segany.train.loop_config import MAY_CHANGE

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.safetensors"


class RunFolder:
    """A folder of one training. One process alone writes to it, in a `with` block.

    It holds a run once a model has been saved there; what a run leaves that ends before that is overwritten.

    Attributes:
        path: of the folder.
        best, last: the models for use.
        state: what resuming needs; see `segany.train.checkpoint`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last, self.state = path / BEST, path / LAST, path / STATE
        self._described = path / "config.json"
        self._metrics: Any = None
        self._board: Any = None

    def begin(self, description: Mapping[str, Any], *, resume: bool) -> bool:
        """Take the folder for a run, or go on with the one it holds.

        Args:
            description: what determines the run, JSON values; its "loop" is the loop's config.
            resume: go on with a run of the same description, but for the loop's fields that `MAY_CHANGE`. Where
                there is none yet, one begins.

        Returns:
            Whether there is a state to go on from.

        Raises:
            TrainingError: another run is there, or one that was not asked for.
            OutputError: nothing can be written there.
        """
        self.check_free(description, resume=resume)
        write_file(self._described, json.dumps(description, indent=2).encode() + b"\n")
        return self.state.exists()

    def check_free(self, description: Mapping[str, Any], *, resume: bool) -> None:
        """Raise as `begin` does where the folder cannot be taken; nothing is written."""
        with path_errors(self.path, OutputError):
            is_there = any(path.exists() for path in (self.state, self.best, self.last))
        if is_there and not resume:
            raise TrainingError(
                f"{self.path} holds a run already. Go on with it by --resume (resume=True), or choose another folder."
            )
        if is_there:
            self._check_same(json.loads(json.dumps(description)))

    def open_logs(self, step: int) -> None:
        """Go on with the logs after a step, from -1 for a new run; what they hold of later ones was lost, and goes."""
        path = self.path / "metrics.jsonl"
        kept = [line for line in self.lines() if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with _writing(path):
            self._metrics = path.open("a", encoding="utf-8")
        import_extra("tensorboard", "Training writes logs for TensorBoard", "train")
        import_extra("matplotlib", "Loss curves need matplotlib", "train")  # now, and not after the first validation
        from torch.utils.tensorboard import SummaryWriter

        board = self.path / "tensorboard"
        with _writing(board):
            self._board = SummaryWriter(str(board), purge_step=max(0, step + 1))

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for log in (self._metrics, self._board):
            if log is not None:
                with contextlib.suppress(OSError):
                    log.close()

    def note_start(self, step: int, facts: Mapping[str, Any]) -> None:
        """Add to `environment.json` that the run starts or goes on here, after `step`."""
        path = self.path / "environment.json"
        starts: list[Any] = []
        with contextlib.suppress(OSError, ValueError):
            starts = list(json.loads(path.read_text(encoding="utf-8")))
        write_file(path, json.dumps([*starts, {"step": step, **environment(), **facts}], indent=2).encode() + b"\n")

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`, and its numbers to TensorBoard's.

        Raises:
            OutputError: it could not be written.
        """
        with _writing(self.path / "metrics.jsonl"):
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        with _writing(self.path / "tensorboard"):
            for name, value in _numbers(line):
                self._board.add_scalar(name, value, line["step"])

    def lines(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, without one that was cut off."""
        try:
            text = (self.path / "metrics.jsonl").read_text(encoding="utf-8")
        except OSError:
            return []
        lines = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def draw(self) -> None:
        """Draw `curves.png` anew."""
        write_file(self.path / "curves.png", draw_curves(self.lines()))

    def write_samples(self, step: int, pictures: Sequence[PixelArray]) -> None:
        """Add a picture of predictions after a step: these, one below the other."""
        if not pictures:
            return
        width = max(picture.shape[1] for picture in pictures)
        padded = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures]
        write_file(self.path / "samples" / f"step-{step:06}.png", png_bytes(np.concatenate(padded)))

    def write_skipped(self, damaged: Mapping[str, str], without_masks: Iterable[str]) -> None:
        """Add to `skipped.json` which images could not be read, and why, and of which no mask was left."""
        path = self.path / "skipped.json"
        before: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        now = {
            "damaged": {**before.get("damaged", {}), **damaged},
            "without_masks": sorted({*before.get("without_masks", ()), *without_masks}),
        }
        if now != before and any(now.values()):
            write_file(path, json.dumps(now, indent=2).encode() + b"\n")

    def step_model(self, step: int) -> Path:
        """Where the model of a step is kept."""
        return self.path / f"step-{step:06}.safetensors"

    def drop_models(self, keep: int) -> None:
        """Remove the models of steps but for the latest `keep`."""
        kept = sorted(self.path.glob("step-*.safetensors"), key=lambda path: int(path.stem.partition("-")[2]))
        for path in kept[: max(0, len(kept) - keep)]:
            path.unlink(missing_ok=True)

    def _check_same(self, now: Mapping[str, Any]) -> None:
        try:
            before = json.loads(self._described.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self._described} cannot be read ({error}), so the run there cannot be resumed."
            ) from error
        allowed = {f"loop.{name}" for name in MAY_CHANGE}
        old, new = dict(_flat(before)), dict(_flat(now))
        other = [name for name in {**old, **new} if name not in allowed and old.get(name) != new.get(name)]
        if other:
            shown = "\n".join(f"  {name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in other[:8])
            raise TrainingError(
                f"{self.path} holds a run of another recipe:\n{shown}\n"
                "Resume with the settings it began with, or choose another folder."
            )


def environment() -> dict[str, Any]:
    """What a run depends on besides its config."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "segany": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in _flat({key: item for key, item in line.items() if key != "step"}):
        if isinstance(value, (int, float)):
            yield name.replace(".", "/"), value


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error
