"""Where weights live: a directory a model, a lock, and a note of the sha256 of each file.

    <SEGANY_CACHE>/weights/<model>/<filename>               the checkpoint
    <SEGANY_CACHE>/weights/<model>/<filename>.sha256.json   its digest, for the size and mtime it had
    <SEGANY_CACHE>/weights/<model>.lock

A file that a person puts there is as good as a fetched one: it is checked the same way.
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
"""Failures of the disk, which no other source of the weights can help with, and what to do."""

_PART_SUFFIX = ".part"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class CacheEntry:
    """What the cache has of a model.

    Attributes:
        path: an intact checkpoint; None where there is none.
        damage: one sentence for each checkpoint that is there but is not what was published.
    """

    path: Path | None
    damage: tuple[str, ...] = ()


def cache_directory() -> Path:
    """The directory of everything that is kept, whether or not it exists."""
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(root).expanduser() if root else platformdirs.user_cache_path("segany")
    return base.absolute()


def weights_directory(spec: ModelSpec) -> Path:
    """The directory of that model's files, whether or not it exists."""
    return cache_directory() / "weights" / spec.name


def checkpoint_path(spec: ModelSpec, source: WeightSource) -> Path:
    """Where the checkpoint of that source is kept."""
    return weights_directory(spec) / Path(source.filename).name


def find(spec: ModelSpec) -> CacheEntry:
    """The first intact checkpoint, in the order of the model's sources. Never touches the network."""
    damage: dict[str, None] = {}  # two sources may give the same file
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
    """The file's sha256. Hashing gigabytes takes seconds, so it is done again only when the file changed."""
    fingerprint = _fingerprint(path)  # taken before hashing: a file that changes meanwhile is hashed again
    with contextlib.suppress(OSError, ValueError):  # no note, or a torn one
        note = json.loads(_note_path(path).read_text())
        if isinstance(note, dict) and note.get("fingerprint") == fingerprint:
            return str(note["sha256"])
    digest = sha256_of(path)
    _write_note(path, fingerprint, digest)
    return digest


def install(arrived: Path, path: Path, digest: str) -> None:
    """Move a checked file to its place in one step, and note its digest."""
    arrived.replace(path)
    _write_note(path, _fingerprint(path), digest)


@contextlib.contextmanager
def locked(place: Path, work: str, progress: ProgressCallback | None = None) -> Iterator[None]:
    """Hold the lock `<place>.lock`, for work on `place` that one process does at a time.

    Args:
        place: a file or folder in the cache; the folder that holds it is made.
        work: what is done meanwhile, for people: "fetching mobile_sam".
        progress: told five times a second that another process holds the lock, however long that lasts; what it
            raises, such as `CanceledError`, ends the wait.
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
    """Where a download is kept until it is whole and checked. A broken one is resumed from there."""
    return weights_directory(spec) / f"{filename}{_PART_SUFFIX}"


def discard_parts(spec: ModelSpec) -> None:
    """Delete what broken downloads left behind. Only for the holder of the lock."""
    for entry in weights_directory(spec).glob(f"*{_PART_SUFFIX}"):
        _delete(entry)


def clear(spec: ModelSpec) -> int:
    """Delete all that is kept of a model. Returns how many bytes that freed. Only for the holder of the lock."""
    directory = weights_directory(spec)
    freed = sum(file.lstat().st_size for file in directory.rglob("*") if not file.is_dir())
    for entry in directory.iterdir():  # not the directory itself: it may be a link to a larger disk
        _delete(entry)
    return freed


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")


def _fingerprint(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _write_note(path: Path, fingerprint: list[int], digest: str) -> None:
    with contextlib.suppress(OSError):  # a read-only cache works too, it is only slower
        _note_path(path).write_text(json.dumps({"fingerprint": fingerprint, "sha256": digest}))


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
