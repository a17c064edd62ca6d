"""Images by reference: files below the folders that a person named, and nothing outside them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import cast

from segany.core.errors import DataError, ImageError
from segany.core.files import path_errors, sha256_of
from segany.store.tables import ItemRow


def check_below(root: Path, path: str) -> None:
    """Raise `DataError` where a path leads out of a root, links followed."""
    with path_errors(root / path, DataError):
        if not (root / path).resolve().is_relative_to(root):
            raise DataError(f"{root / path} leads out of the root {root}.")


def reference(root: Path, row: ItemRow) -> Path:
    """The file that an item refers to, with links followed.

    Raises:
        ImageError: it is not there, was changed, or lies outside the root.
    """
    path = root / cast(str, row.path)
    with path_errors(path, ImageError):
        resolved = path.resolve()
        if not resolved.is_relative_to(root.resolve()):
            raise ImageError(f"{path} leads to {resolved}, outside the root {root}. It is not opened.")
        if not resolved.is_file():
            raise ImageError(
                f"{path} is missing. If it was moved, relink it: start segany serve with the folder that it is in now. "
                "Images are found by their content."
            )
        if resolved.stat().st_size != row.byte_count:
            raise ImageError(f"{path} was changed since it was added. Put the old file back, or add it as a new image.")
    return resolved


def is_there(root: Path, row: ItemRow) -> bool:
    """Whether the file that an item refers to has the content it had."""
    try:
        return sha256_of(reference(root, row)) == row.sha256
    except (ImageError, OSError):
        return False


def files_by_content(root: Path, sizes: set[int]) -> dict[str, list[str]]:
    """Paths below a folder by the sha256 of their files, for files of some sizes."""
    found: dict[str, list[str]] = defaultdict(list)
    if not sizes:
        return found
    for path in sorted(root.rglob("*")):
        try:
            if path.is_file() and path.stat().st_size in sizes and path.resolve().is_relative_to(root):
                found[sha256_of(path)].append(path.relative_to(root).as_posix())
        except OSError:  # may not be read; then it cannot be opened either
            continue
    return found
