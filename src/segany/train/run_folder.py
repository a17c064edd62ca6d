"""The folder of a run: its config, environment, metrics, logs, models and training state."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch

from segany.core.arrays import PixelArray
from segany.core.errors import OutputError, TrainingError
from segany.core.extras import import_extra
from segany.core.files import check_is_file, path_errors, read_file, read_text, write_error, write_file
from segany.core.version import __version__
from segany.data.formats.writing import png_bytes
from segany.train.curves import draw_curves
from segany.train.loop_config import MAY_CHANGE

_logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20
"""Longest line of `metrics.jsonl` that is read; a line has a few hundred bytes."""

Notes = TypeVar("Notes", list[Any], dict[str, Any])

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.safetensors"


class RunFolder:
    """The folder of one run. Only the main process writes to it, in a `with` block.

    A folder holds a run once a model is saved in it. The files of a run that ends earlier are overwritten.

    Attributes:
        path: path of the folder.
        best, last: files of the best and the last model, for inference.
        state: file of the training state, from which a run resumes; see `segany.train.checkpoint`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last, self.state = path / BEST, path / LAST, path / STATE
        self._described = path / "config.json"
        self._metrics: Any = None
        self._board: Any = None

    def begin(self, description: Mapping[str, Any], *, resume: bool) -> bool:
        """Start a run in the folder, or resume the run that it holds.

        Args:
            description: JSON values that identify the run; "loop" is the config of the loop.
            resume: resume a run with the same description, except for the loop's fields in `MAY_CHANGE`. If the folder
                holds no run, a new one starts.

        Returns:
            Whether there is a training state to resume from.

        Raises:
            TrainingError: the folder holds a run and `resume` is false, or it holds another run.
            OutputError: the folder cannot be written to.
        """
        self.check_free(description, resume=resume)
        write_file(self._described, json.dumps(description, indent=2).encode() + b"\n")
        return self.state.exists()

    def check_free(self, description: Mapping[str, Any], *, resume: bool) -> None:
        """Raise the errors of `begin`, without writing anything."""
        with path_errors(self.path, OutputError):
            is_there = any(path.exists() for path in (self.state, self.best, self.last))
        if is_there and not resume:
            raise TrainingError(
                f"{self.path} holds a run already. Resume it with --resume (resume=True), or choose another folder."
            )
        if is_there:
            self._check_same(json.loads(json.dumps(description)))

    def open_logs(self, step: int) -> None:
        """Open the logs for appending after a step, -1 for a new run. Entries of later steps are removed.

        A run that was killed may have logged steps after its last checkpoint, which the resumed run repeats.
        """
        path = self.path / "metrics.jsonl"
        kept = [line for line in self.lines() if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with _writing(path):
            self._metrics = path.open("a", encoding="utf-8")
        import_extra("tensorboard", "Training writes logs for TensorBoard", "train")
        # It is needed after the first validation only, but a missing package should fail now.
        import_extra("matplotlib", "Loss curves need matplotlib", "train")
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
        """Append the environment of this start of the run, after `step`, to `environment.json`."""
        path = self.path / "environment.json"
        starts = _read_notes(path, list) or []
        write_file(path, json.dumps([*starts, {"step": step, **environment(), **facts}], indent=2).encode() + b"\n")

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`, and its numbers to the TensorBoard log.

        Raises:
            OutputError: a file could not be written.
        """
        with _writing(self.path / "metrics.jsonl"):
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        with _writing(self.path / "tensorboard"):
            for name, value in _numbers(line):
                self._board.add_scalar(name, value, line["step"])

    def lines(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, without repeated and, with a warning, damaged ones.

        Raises:
            OutputError: it cannot be read, or is not a file.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines: dict[bytes, dict[str, Any]] = {}
        damaged = 0
        with path_errors(path, OutputError):
            check_is_file(path, OutputError)
            with path.open("rb") as file:
                while text := file.readline(MAX_LINE_BYTES):
                    line = _metrics(text)
                    if line is None:
                        damaged += bool(text.strip())
                    else:
                        lines[text.strip()] = line
        if damaged:
            _logger.warning("%d lines of %s are damaged or cut off. They are left out.", damaged, path)
        return list(lines.values())

    def draw(self) -> None:
        """Plot the curves of all steps so far to `curves.png`."""
        write_file(self.path / "curves.png", draw_curves(self.lines()))

    def write_samples(self, step: int, pictures: Sequence[PixelArray]) -> None:
        """Write pictures of predictions after a step, uint8 [H, W, 3], one below the other, as one image."""
        if not pictures:
            return
        width = max(picture.shape[1] for picture in pictures)
        padded = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures]
        write_file(self.path / "samples" / f"step-{step:06}.png", png_bytes(np.concatenate(padded)))

    def write_skipped(self, damaged: Mapping[str, str], without_masks: Iterable[str]) -> None:
        """Add to `skipped.json` images that could not be read, with the reasons, and images without a usable mask."""
        path = self.path / "skipped.json"
        before = _read_notes(path, dict) or {}
        known, unmasked = before.get("damaged", {}), before.get("without_masks", [])
        if not isinstance(known, dict) or not isinstance(unmasked, list):
            _logger.warning("%s is damaged. It is written anew, without the images of earlier starts.", path)
            known, unmasked = {}, []
        now = {
            "damaged": {**known, **damaged},
            "without_masks": sorted({*map(str, unmasked), *without_masks}),
        }
        if now != before and any(now.values()):
            write_file(path, json.dumps(now, indent=2).encode() + b"\n")

    def step_model(self, step: int) -> Path:
        """Path of the model of a step."""
        return self.path / f"step-{step:06}.safetensors"

    def drop_models(self, keep: int) -> None:
        """Remove the models of all but the latest `keep` steps."""
        kept = sorted(self.path.glob("step-*.safetensors"), key=lambda path: int(path.stem.partition("-")[2]))
        for path in kept[: max(0, len(kept) - keep)]:
            path.unlink(missing_ok=True)

    def _check_same(self, now: Mapping[str, Any]) -> None:
        try:
            before = json.loads(read_text(self._described, TrainingError))
        except (TrainingError, ValueError, RecursionError) as error:
            raise TrainingError(
                f"{self._described} cannot be read ({error}), so the run cannot be resumed. Choose another folder."
            ) from error
        allowed = {f"loop.{name}" for name in MAY_CHANGE}
        old, new = dict(_flat(before)), dict(_flat(now))
        other = [name for name in {**old, **new} if name not in allowed and old.get(name) != new.get(name)]
        if other:
            shown = "\n".join(f"  {name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in other[:8])
            raise TrainingError(
                f"{self.path} holds a run of another recipe:\n{shown}\n"
                "Resume with the settings that it started with, or choose another folder."
            )


def environment() -> dict[str, Any]:
    """The versions, the machine and the command of this process."""
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


def _metrics(text: bytes) -> dict[str, Any] | None:
    """The values in a line of `metrics.jsonl`; None if it is damaged."""
    try:
        line = json.loads(text)
        validation = line.get("validation", {})
        numbers = [float(line["step"]), float(line.get("loss", 0)), *map(float, validation.values())]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return line if type(line["step"]) is int and all(map(math.isfinite, numbers[:2])) else None


def _read_notes(path: Path, kind: type[Notes]) -> Notes | None:
    """The JSON value in a file of the run; None if there is none or, with a warning, if it is damaged.

    Raises:
        OutputError: it cannot be read, or is not a file.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(read_file(path, OutputError))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        _logger.warning("%s is damaged. It is written anew, without the entries of earlier starts.", path)
        return None
    return value


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
