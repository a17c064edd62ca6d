"""`segany serve` as a process, with a project that a benchmark has filled before."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from PIL import Image, ImageOps

from benchmarks.setting import REPOSITORY

IMAGES = REPOSITORY / "examples" / "images"

SIZE_HW = (1200, 1800)

START_SECONDS = 120
"""A first start imports PyTorch from a cold disk."""


class ServerProcess:
    """The server, as the command starts it, in a `with` statement."""

    def __init__(self, project: Path, *arguments: object) -> None:
        """Start it.

        Args:
            project: folder of the project.
            arguments: further ones of `segany serve`.
        """
        command = [
            sys.executable, "-c", "from segany.cli import main; main()", "serve", *map(str, arguments),
            "--project", str(project), "--no-browser", "--port", "0",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )  # fmt: skip
        self._addresses: queue.Queue[str | None] = queue.Queue()
        self._printed: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def address(self) -> str:
        """An address with a token that was not used yet: the server prints another one when one is used."""
        address = self._addresses.get(timeout=START_SECONDS)
        if address is None:
            raise RuntimeError("The server has ended:\n" + "".join(self._printed))
        return address

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._printed.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", line):
                self._addresses.put(found[0])
        self._addresses.put(None)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def write_photographs(folder: Path) -> list[Path]:
    """Write the carried photographs at 1800 x 1200, each also mirrored, upside down, and both: twelve images."""
    folder.mkdir()
    height, width = SIZE_HW
    paths: list[Path] = []
    for source in sorted(IMAGES.glob("*.png")):
        with Image.open(source) as opened:
            image = opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        for turned in (image, ImageOps.mirror(image), ImageOps.flip(image), ImageOps.flip(ImageOps.mirror(image))):
            path = folder / f"{len(paths):02}_{source.stem}.jpg"
            turned.save(path, quality=92)
            paths.append(path)
    return paths
