"""Search for the files of a dataset in folders, and names of items."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePath

from segany.core.arrays import PixelArray, SizeHW
from segany.core.errors import DataError, ImageError
from segany.core.files import path_errors
from segany.imaging.image import read_image
from segany.imaging.image_formats import readable_suffixes, warn_unreadable_images


def check_folder(folder: Path) -> None:
    """Raise `DataError` unless the folder exists."""
    with path_errors(folder, DataError):
        if not folder.exists():
            raise DataError(f"There is no folder {folder}. Check the path.")
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder.")


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with certain suffixes below a folder, sorted by their relative paths. Symbolic links are followed.

    Args:
        folder: the folder.
        suffixes: suffixes in lower case, with the dot. The case of suffixes of files is ignored.

    Raises:
        DataError: a folder cannot be read.
    """
    files = [file for file in walk_files(folder) if file.suffix.lower() in suffixes]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in any order, without hidden ones. Each symbolic link is followed once.

    Raises:
        DataError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()  # links may lead back
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with path_errors(current, DataError):
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as found:
                for entry in found:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append(Path(entry.path))
                    else:
                        yield Path(entry.path)


def matching_files(pattern: str) -> list[Path]:
    """The files that match a `glob` pattern, in which `**` matches any folders; sorted, without hidden files.

    Unlike `glob`, it visits a folder that several symbolic links refer to only once, so that cyclic links do not make
    it run forever.

    Raises:
        DataError: a folder cannot be read.
    """
    before, star, after = pattern.partition("**")
    if not star:
        return sorted(Path(path) for path in glob.iglob(pattern) if os.path.isfile(path))  # noqa: PTH113, PTH207
    root, _, prefix = before.rpartition("/")
    roots = [Path(root or ("/" if before.startswith("/") else "."))]
    if glob.has_magic(root):
        roots = [Path(path) for path in glob.iglob(root) if os.path.isdir(path)]  # noqa: PTH112, PTH207
    try:
        matches = re.compile(_regex(prefix + star + after)).fullmatch
    except re.error as error:
        raise DataError(f"{pattern} is no pattern: {error}.") from error
    found = {
        file
        for folder in roots
        if folder.is_dir()
        for file in walk_files(folder)
        if matches(file.relative_to(folder).as_posix())
    }
    return sorted(found)


def _regex(pattern: str) -> str:
    """The regular expression for the relative paths that match a `glob` pattern."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]*\])", pattern)
    known = {"**/": "(?:.+/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    translated = (
        known.get(part) or (re.sub(r"^\[!", "[^", part) if part.startswith("[") else re.escape(part)) for part in parts
    )
    return "".join(translated)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder. A link to itself, for which the system raises an error, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    return sorted(entry for entry in entries(folder) if entry.is_dir())


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden ones.

    Raises:
        DataError: the folder cannot be read.
    """
    with path_errors(folder, DataError):
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """All image files below a folder, in the order of `files_below`; warns about those that cannot be read."""
    found = list(walk_files(folder))
    warn_unreadable_images(found, str(folder))
    suffixes = readable_suffixes()
    files = [file for file in found if file.suffix.lower() in suffixes]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def name_of(path: Path, root: Path) -> str:
    """The name of a file in a dataset: its path relative to the root, with slashes and without suffix.

    Characters that cannot be encoded are escaped, so that every name can be printed and written.
    """
    relative = path.relative_to(root)
    return printable(relative.with_name(relative.stem).as_posix())


def printable(text: str) -> str:
    """Escape characters that cannot be encoded, such as surrogates, which stand for bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def safe_name(path: PurePath) -> str:
    """Convert a path to the name of an item, without suffix, which cannot lead files out of their output folder."""
    parts = [part for part in path.with_suffix("").parts if part not in ("..", path.anchor)]
    return printable("/".join(parts))


def find_path(folder: Path, name: PurePath) -> Path | None:
    """Find an entry of a folder by its name in any Unicode form; None if there is none.

    "é" is one letter or two, and some systems change that when files are copied.
    """
    path = folder / name
    if _exists(path) or name.as_posix().isascii():
        return path if _exists(path) else None
    places = [folder]  # the parts of the path may be in different forms
    for part in name.parts:
        spellings = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        places = [place / spelling for place in places for spelling in spellings if _exists(place / spelling)]
    return places[0] if places else None


def find_file(folder: Path, name: PurePath) -> Path | None:
    """Find a file as `find_path` does; None if there is none."""
    path = find_path(folder, name)
    return path if path is not None and path.is_file() else None


def nfc(text: str) -> str:
    """Text in the Unicode form in which names are compared."""
    return unicodedata.normalize("NFC", text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def stem_key(path: Path) -> str:
    """Return the key by which images are matched to their masks: the stem of the file in NFC.

    Names may be in different Unicode forms, which some systems change when files are copied.
    """
    return nfc(path.stem)


def by_stem(files: Collection[Path]) -> dict[str, Path]:
    """Files by `stem_key`.

    Raises:
        DataError: two files have the same key.
    """
    return by_key(files, stem_key)


def by_key(files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    """Files by a key that a function computes from their paths.

    Raises:
        DataError: two files have the same key.
    """
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(key(file), file)
        if other is not file:
            raise DataError(f"{other} and {file} differ only in their endings. Keep only one of them.")
    return found


def read_item_image(path: Path, size_hw: SizeHW | None = None) -> PixelArray:
    """Read the image of an item, uint8 [H, W, 3].

    Args:
        path: path of the image.
        size_hw: size of its masks, if it is known.

    Raises:
        DataError: the image is missing or damaged, or its masks have another size.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        raise DataError(str(error)) from error
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is.") from error
    if size_hw is not None:
        check_size(image, size_hw, str(path))
    return image


def check_size(image: PixelArray, size_hw: SizeHW, what: str) -> None:
    """Raise `DataError` unless masks of a size fit an image [H, W, 3]. `what` is the start of the message."""
    height, width = image.shape[:2]
    if (height, width) != tuple(size_hw):
        raise DataError(
            f"{what} is {width} wide and {height} high, but its masks are {size_hw[1]} wide and {size_hw[0]} high."
        )


def check_not_empty(count: int, where: Path | str, what: str) -> None:
    """Raise `DataError` if a dataset has no items."""
    if not count:
        raise DataError(f"{where} holds no {what}. The dataset is empty.")
