"""Atomic writes of files and folders, and SHA-256 digests.

Data is written under a temporary name in the target folder and then renamed. A killed process leaves its temporary
files behind; the next process that writes into the same folder removes them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from segany.core.errors import OutputError, SeganyError

_READ_BYTES = 1 << 20

STALE_SECONDS = 24 * 3600
"""Age at which temporary files of other machines, whose processes cannot be checked, are removed from a folder."""

_TEMPORARY = re.compile(r"\.segany-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{12}\.tmp")

_cleaned: set[str] = set()  # folders from which this process has removed stale files: once per process is enough

_WHAT_TO_DO = {
    errno.ENOSPC: "there is no space left on the device. Free some, or choose another folder.",
    errno.EDQUOT: "the disk quota is used up. Free some space, or choose another folder.",
    errno.EACCES: "you have no permission to write there. Choose another folder.",
    errno.EPERM: "you have no permission to write there. Choose another folder.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.ENOTDIR: "a part of the path is a file and not a folder. Choose another folder.",
    errno.EEXIST: "a file is where the folder should be. Choose another folder.",
    errno.EISDIR: "there is a folder of that name. Move it away, or choose another folder.",
    errno.ENODEV: "it is a device, pipe or socket. Choose another name.",
    errno.ENAMETOOLONG: "the name is too long.",
}


@contextlib.contextmanager
def path_errors(path: Path, kind: type[SeganyError]) -> Iterator[None]:
    """Convert errors of accessing a path into `kind`, with the path in the message.

    Such errors are a name that is too long, a folder without permission, or a cycle of symbolic links.
    """
    try:
        yield
    except SeganyError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # Path.resolve raises RuntimeError for cycles
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise kind(f"{path} cannot be used: {reason}. Check the path.") from error


def read_file(path: Path, kind: type[SeganyError]) -> bytes:
    """Read the content of a regular file. Pipes, sockets and devices are not opened, since reading may not end.

    Raises:
        SeganyError: of type `kind`, with the path: it is missing, not a regular file, or not readable.
    """
    with path_errors(path, kind):
        check_is_file(path, kind)
        return path.read_bytes()


class BoundedFile(io.BufferedReader):
    """A file opened for reading, of which a `read` allocates no more than is left.

    Python allocates what is asked for, and decoders ask for what headers claim.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _READ_BYTES:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def read_text(path: Path, kind: type[SeganyError]) -> str:
    """Read a regular file as UTF-8 text; errors as for `read_file`."""
    try:
        return read_file(path, kind).decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise kind(f"{path} is no text in UTF-8: {error}.") from error


def check_is_file(path: Path, kind: type[SeganyError]) -> None:
    """Raise `kind` if the path is a folder, pipe, socket or device, and `OSError` if it does not exist."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise kind(f"{path} is a folder, not a file. Check the path.")
    if not stat.S_ISREG(mode):
        raise kind(f"{path} is not a file but a pipe, socket or device. Save its content to a file first.")


def write_file(path: Path, data: bytes) -> Path:
    """Write a file atomically, and create missing folders.

    On any exception, an interrupt included, `path` keeps its previous content and no temporary file is left.

    Raises:
        OutputError: there is no space or no permission, the path is invalid, or it is a device or pipe. The message
            names the path.
    """
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file that replaces `path` at the end of the `with` block.

    If the block raises, an interrupt included, `path` is unchanged and the temporary file is removed.

    Raises:
        OutputError: as for `write_file`; an `OSError` of the block is converted too.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(errno.ENODEV, "it is a device")  # noqa: TRY301
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path.parent)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # some file systems report a full disk only here
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except SeganyError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Create and yield a temporary folder that replaces `folder` at the end of the `with` block.

    If the block raises, an interrupt included, `folder` is unchanged and the temporary folder is removed. An existing
    folder is deleted with all its content: check first that it holds nothing else.

    Raises:
        OutputError: as for `write_file`; an `OSError` of the block is converted too.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary, before = temporary_path(folder.parent), temporary_path(folder.parent)
        try:
            temporary.mkdir()
            yield temporary
            if folder.exists():
                folder.rename(before)
            temporary.rename(folder)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for leftover in (temporary, before):
                shutil.rmtree(leftover, ignore_errors=True)
    except SeganyError:
        raise
    except OSError as error:
        raise write_error(folder, error) from error


def temporary_path(folder: Path) -> Path:
    """Return a new temporary path in a folder, after removing stale temporary files from it once per process."""
    key = os.path.abspath(folder)  # noqa: PTH100 - links need not be followed
    if key not in _cleaned:
        _cleaned.add(key)
        remove_stale_files(folder)
    # The name is short, so that it does not exceed the limit on the length of a path.
    return folder / f".segany-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"


def remove_stale_files(folder: Path) -> None:
    """Remove temporary files and folders of processes that no longer run. Errors are ignored."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not _is_stale(entry, match[1], int(match[2])):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()


def _is_stale(entry: os.DirEntry[str], machine: str, process: int) -> bool:
    if machine == _machine() and os.name == "posix":  # on Windows, signal 0 would end the process
        return process != os.getpid() and not _is_alive(process)
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # the process belongs to another user, or its state is unknown
        return True
    return True


def _machine() -> str:
    """Return an id of this machine, since several machines may share a folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def write_error(path: Path, error: Exception) -> OutputError:
    """Convert an error of the file system during a write into an `OutputError`."""
    reason = _WHAT_TO_DO.get(getattr(error, "errno", None) or 0, f"{getattr(error, 'strerror', None) or error}.")
    return OutputError(f"{path} could not be written: {reason}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
