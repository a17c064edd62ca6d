"""Pipes, sockets, devices, folders and links in place of the file of a reader.

Run as a program, it reads each of them in place of one reader's file, and prints the name of each before reading it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.robustness.readers import READERS

from segany.core.errors import SeganyError


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "random device": lambda path: path.symlink_to("/dev/urandom"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": Path.mkdir,
    "empty file": Path.touch,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
}


def read_all(name: str) -> None:
    make, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        good = _made(make, Path(folder) / "good")
        for number, (kind, replace) in enumerate(KINDS.items()):
            path = Path(folder) / str(number) / good.relative_to(Path(folder) / "good")
            shutil.copytree(Path(folder) / "good", Path(folder) / str(number))
            path.unlink()
            replace(path)
            print(kind, flush=True)
            try:
                read(path)
            except SeganyError as error:
                # Of folders of data, whatever is not a file may count as missing.
                if not any(part in str(error) for part in path.parts[-3:]):
                    sys.exit(f"{kind} is not named: {error}")


def _made(make: Callable[[Path], Path], folder: Path) -> Path:
    folder.mkdir()
    return make(folder)


if __name__ == "__main__":
    read_all(sys.argv[1])
