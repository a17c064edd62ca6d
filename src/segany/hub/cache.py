"""The cache of weights: a directory per model, with a lock and the SHA-256 of each file.

    <SEGANY_CACHE>/weights/<model>/<filename>               the checkpoint
    <SEGANY_CACHE>/weights/<model>/<filename>.sha256.json   its digest, and its size and mtime when it was hashed
    <SEGANY_CACHE>/weights/<model>.lock

A file may also be placed there by hand; it is verified in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from segany.core.errors import WeightsError
from segany.core.files import sha256_of
from segany.core.progress import ProgressCallback, report
from segany.models.registry import ModelSpec, WeightSource

CACHE_VARIABLE = "SEGANY_CACHE"
DISK_ADVICE = {
    errno.ENOSPC: "The disk is full. Free some space",
    errno.EDQUOT: "The disk quota is used up. Free some space",
    errno.EACCES: "You have no permission there. Change it",
    errno.EPERM: "You have no permission there. Change it",
    errno.EROFS: "The file system is read-only. Make it writable",
}
"""Advice for errors of the disk, after which other sources are not tried."""

_PART_SUFFIX = ".part"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class CacheEntry:
    """The state of a model in the cache.

    Attributes:
        path: path of an intact checkpoint; None if there is none.
        damage: a message for each checkpoint with a wrong digest.
    """

    path: Path | None
    damage: tuple[str, ...] = ()


def cache_directory() -> Path:
    """Return the cache directory, whether or not it exists.

    Raises:
        WeightsError: SEGANY_CACHE names the home of an unknown user, or there is no home for the default.
    """
    root = os.environ.get(CACHE_VARIABLE)
    try:
        base = Path(root).expanduser() if root else platformdirs.user_cache_path("segany")
    except RuntimeError as error:
        raise WeightsError(
            f"{CACHE_VARIABLE} is {root!r}, whose ~ stands for no home directory here. Set it to an absolute path."
        ) from error
    if base.parts[:1] and base.parts[0].startswith("~"):  # platformdirs keeps it where there is no home
        raise WeightsError(f"There is no home directory for the cache. Set {CACHE_VARIABLE} to an absolute path.")
    return base.absolute()


def weights_directory(spec: ModelSpec) -> Path:
    """Return the directory of a model's files, whether or not it exists."""
    return cache_directory() / "weights" / spec.name


def checkpoint_path(spec: ModelSpec, source: WeightSource) -> Path:
    """Return the path of a source's checkpoint in the cache."""
    return weights_directory(spec) / Path(source.filename).name


def find(spec: ModelSpec) -> CacheEntry:
    """Find the first intact checkpoint in the order of the model's sources, without network access."""
    damage: dict[str, None] = {}  # a dict, since two sources may have the same file
    for source in spec.sources:
        path = checkpoint_path(spec, source)
        if not path.is_file():
            continue
        digest = known_sha256(path) if source.sha256 else None
        if digest == source.sha256:
            return CacheEntry(path)
        damage[f"{path} is damaged or another file: its sha256 is {digest}, expected {source.sha256}"] = None
    return CacheEntry(None, tuple(damage))


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is stored beside it and recomputed only if size or mtime change."""
    fingerprint = _fingerprint(path)  # before hashing, so that a file that changes meanwhile is hashed again
    with contextlib.suppress(OSError, ValueError):  # the digest file is missing or damaged
        note = json.loads(_note_path(path).read_text())
        if isinstance(note, dict) and note.get("fingerprint") == fingerprint:
            return str(note["sha256"])
    digest = sha256_of(path)
    _write_note(path, fingerprint, digest)
    return digest


def install(arrived: Path, path: Path, digest: str) -> None:
    """Move a verified file to its path atomically, and store its digest."""
    arrived.replace(path)
    _write_note(path, _fingerprint(path), digest)


@contextlib.contextmanager
def locked(place: Path, work: str, progress: ProgressCallback | None = None) -> Iterator[None]:
    """Hold the file lock `<place>.lock`, so that only one process works on `place`.

    Args:
        place: a file or folder in the cache; its parent folder is created.
        work: description of the work for messages, such as "fetching mobile_sam".
        progress: called five times a second while another process holds the lock. If it raises, for example
            `CanceledError`, the wait ends. There is no timeout.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f"{place.name}.lock"))
    timeout = 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            report(progress, f"waiting for another process that is {work}", 0, None, "")
            timeout = _POLL_SECONDS
    try:
        yield
    finally:
        lock.release()


def part_path(spec: ModelSpec, filename: str) -> Path:
    """Return the path of a partial download, from which it can be resumed."""
    return weights_directory(spec) / f"{filename}{_PART_SUFFIX}"


def discard_parts(spec: ModelSpec) -> None:
    """Delete partial downloads. The caller must hold the lock."""
    for entry in weights_directory(spec).glob(f"*{_PART_SUFFIX}"):
        _delete(entry)


def clear(spec: ModelSpec) -> int:
    """Delete the checkpoints of a model, their digests, and partial downloads. The caller must hold the lock.

    Other files are kept, since the directory may be a link to one with other content.

    Returns:
        The number of bytes freed.
    """
    directory, freed = weights_directory(spec), 0
    checkpoints = [checkpoint_path(spec, source) for source in spec.sources]
    ours = {path.name for checkpoint in checkpoints for path in (checkpoint, _note_path(checkpoint))}
    for entry in list(directory.iterdir()):
        if entry.name in ours or entry.name.endswith(_PART_SUFFIX):
            inside = entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else [entry]
            freed += sum(file.lstat().st_size for file in inside if not file.is_dir())
            _delete(entry)
    return freed


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")


def _fingerprint(path: Path) -> list[int]:
    """Return size in bytes and mtime in nanoseconds."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _write_note(path: Path, fingerprint: list[int], digest: str) -> None:
    with contextlib.suppress(OSError):  # a read-only cache works too, but hashes files each time
        _note_path(path).write_text(json.dumps({"fingerprint": fingerprint, "sha256": digest}))


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
