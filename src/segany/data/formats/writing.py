"""What every format needs: bytes of PNG and JSON, names for files, and writing them."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

from segany.core.errors import OutputError
from segany.core.files import path_errors, write_file

PNG_COMPRESSION = 3
"""Of 9. More takes several times as long for files a few per cent smaller."""


def png_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """A PNG file of uint8 [H, W] or [H, W, 3 | 4], or uint16 [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def write_files(files: Iterable[tuple[str, bytes]], folder: Path, name: str, keep: Collection[Path] = ()) -> list[Path]:
    """Write files as they are made, each whole or not at all.

    Args:
        files: what each is called after `name`, and what it holds.
        folder: where to; made when it is missing.
        name: what the files' names begin with.
        keep: resolved paths that must not be overwritten, such as the images and masks read.

    Raises:
        OutputError: a file could not be written; earlier ones are kept.
    """
    written = []
    for suffix, data in files:
        path = folder / f"{name}{suffix}"
        check_not_kept(path, keep)
        written.append(write_file(path, data))
    return written


def check_not_kept(path: Path, keep: Collection[Path]) -> None:
    """Raise `OutputError` where a file to be written is one of these resolved paths."""
    with path_errors(path, OutputError):
        if path.resolve() in keep:
            raise OutputError(f"{path} is one of the inputs and is not overwritten. Choose another folder.")


def file_names(sources: Sequence[Path]) -> list[str]:
    """A name for the files of each image: its own without the ending, numbered where two are the same.

    Names that differ only in upper and lower case count as the same, as they do on many disks.
    """
    taken: set[str] = {source.stem.casefold() for source in sources}
    seen: set[str] = set()
    names = []
    for source in sources:
        name, number = source.stem, 1
        while name.casefold() in (seen if number == 1 else taken):
            number += 1
            name = f"{source.stem}_{number}"
        seen.add(name.casefold())
        taken.add(name.casefold())
        names.append(name)
    return names
