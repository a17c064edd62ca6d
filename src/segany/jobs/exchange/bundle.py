"""The files of an import: those that were uploaded, and those in zip archives among them.

Archives may come from anybody. They are not extracted: members are read by name, so that no name in an archive is ever
a path. All members are checked before any is read.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from segany.core.errors import DataError, SeganyError
from segany.core.files import check_is_file, path_errors
from segany.core.zip_files import FREE_BYTES, MAX_RATIO, checked_members
from segany.data.folders import nfc

_FREE = 64 * FREE_BYTES  # files of a megabyte each, however well they are packed


@dataclass(frozen=True)
class Limits:
    """What an import reads at most.

    Attributes:
        files: files, those in archives included.
        file_bytes: of one file.
        total_bytes: of all files in an archive together.
    """

    files: int = 500_000
    file_bytes: int = 2 << 30
    total_bytes: int = 200 << 30


@dataclass(frozen=True)
class SourceFile:
    """A file to import.

    Attributes:
        name: as the person calls it; data, never a path.
        path: where its bytes are.
    """

    name: str
    path: Path


class Bundle:
    """Files by name, with slashes and without the hidden ones."""

    def __init__(self, limits: Limits) -> None:
        """Use `opened` instead."""
        self._limits = limits
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._spellings: dict[str, str] = {}

    @cached_property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted([*self._files, *self._members])

    @cached_property
    def top(self) -> str:
        """The folder that all files are in, with a slash, as where a folder was packed; empty where there is none."""
        first = {name.partition("/")[0] for name in self.names if "/" in name}
        return f"{first.pop()}/" if len(first) == 1 and all("/" in name for name in self.names) else ""

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._members

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it is damaged.
        """
        with _archive_errors(name):
            if name in self._files:
                return self._files[name].read_bytes()
            archive, info = self._members[name]
            return archive.read(info)

    def add_file(self, source: SourceFile) -> None:
        """Add a file that is no archive."""
        if source.path.stat().st_size > self._limits.file_bytes:
            raise DataError(f"{source.name} is larger than {self._limits.file_bytes:,} bytes.")
        name = self._checked(source.name, source.name)
        self._files[name] = source.path

    def add_archive(self, archive: zipfile.ZipFile, source: SourceFile) -> None:
        """Check all members of an archive, and add them."""
        limits, total, packed = self._limits, 0, 0
        for info in checked_members(archive, source.path, source.name):
            total, packed = total + info.file_size, packed + info.compress_size
            name = self._name_of(info, source.name)
            if name is not None:
                self._members[name] = (archive, info)
            if len(self._members) + len(self._files) > limits.files:
                raise DataError(f"{source.name} holds more than {limits.files:,} files. Import it in parts.")
            if total > min(limits.total_bytes, MAX_RATIO * packed + _FREE):
                raise DataError(f"{source.name} would become more than {limits.total_bytes:,} bytes. It is not read.")

    def _name_of(self, info: zipfile.ZipInfo, what: str) -> str | None:
        """The name of a member; None for a folder and for what is hidden."""
        if info.file_size > self._limits.file_bytes:
            raise DataError(f"{what}: {info.filename[:100]!r} would become {info.file_size:,} bytes. It is not read.")
        parts = _parts(info.filename, what)
        if info.is_dir() or any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX":
            return None
        return self._checked("/".join(parts), what)

    def _checked(self, name: str, what: str) -> str:
        name = "/".join(_parts(name, what))
        if nfc(name) in self._spellings:
            both = " and ".join(dict.fromkeys((self._spellings[nfc(name)], what)))
            raise DataError(f"Two files in {both} are called {name[:100]!r}. Import them one by one.")
        self._spellings[nfc(name)] = what
        return name


@contextlib.contextmanager
def opened(sources: Sequence[SourceFile], limits: Limits) -> Iterator[Bundle]:
    """Open the files of an import.

    Raises:
        DataError: a file is missing; or an archive is damaged, or has names that lead elsewhere, links, encrypted
            files, or more than the limits. Nothing was read then.
    """
    bundle = Bundle(limits)
    with contextlib.ExitStack() as open_archives:
        for source in sources:
            with path_errors(source.path, DataError):
                check_is_file(source.path, DataError)
                if _is_archive(source.path):
                    with _archive_errors(source.name):
                        archive = open_archives.enter_context(zipfile.ZipFile(source.path))
                        bundle.add_archive(archive, source)
                else:
                    bundle.add_file(source)
        yield bundle


def _is_archive(path: Path) -> bool:
    """By its first bytes: an image may have an archive behind it."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _parts(name: str, what: str) -> list[str]:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).anchor or ".." in path.parts or "\0" in name:
        raise DataError(f"{what}: the name {name[:100]!r} leads out of the archive. It is not read.")
    parts = [part for part in path.parts if part != "."]
    if not parts:
        raise DataError(f"{what}: the name {name[:100]!r} names no file.")
    return parts


@contextlib.contextmanager
def _archive_errors(what: str) -> Iterator[None]:
    try:
        yield
    except SeganyError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{what} is damaged, or packed in a way that is not known: {error}.") from error
