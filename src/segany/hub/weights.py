"""Weights of registered models, from the cache or the first available source."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from segany.core.errors import WeightsError
from segany.core.progress import ProgressCallback
from segany.hub import cache
from segany.models.registry import MODELS, ModelSpec

_logger = logging.getLogger(__name__)

OFFLINE_VARIABLE = "SEGANY_OFFLINE"
_OFF = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class WeightsStatus:
    """The state of one model in the cache.

    Attributes:
        spec: the model.
        path: path of an intact checkpoint; None if there is none.
        size_bytes: size of that file; 0 if there is none.
        damage: a message for each checkpoint with a wrong digest.
    """

    spec: ModelSpec
    path: Path | None
    size_bytes: int
    damage: tuple[str, ...]


def fetch_weights(spec: ModelSpec, *, progress: ProgressCallback | None = None) -> Path:
    """Return the path of the model's checkpoint; downloads it if it is not in the cache.

    A cached checkpoint is used without network access; its SHA-256 is computed again only if its size or mtime
    changed. Otherwise the sources are tried in order. If several processes need the same weights, one downloads them.

    Args:
        spec: the model, a row of `segany.models.registry.MODELS`.
        progress: receives the bytes of each download, and waiting for another process that downloads the same.

    Raises:
        WeightsError: no source is available, SEGANY_OFFLINE disables the network, or the cache is not writable. The
            message says how to place the file by hand.
    """
    with _disk_errors(spec):
        entry = cache.find(spec)  # without the lock, so that a read-only cache can be used
        if entry.path is not None:
            return entry.path
        if is_offline():
            raise WeightsError(
                f"The weights of {spec.name!r} are not in the cache, and {OFFLINE_VARIABLE} forbids the network."
                + _listed(entry.damage)
                + f"\nUnset {OFFLINE_VARIABLE} to fetch them. {_by_hand(spec)}"
            )
        with _locked(spec, progress):
            entry = cache.find(spec)  # another process may have downloaded them meanwhile
            return entry.path or _fetch(spec, entry.damage, progress)


def cached_path(spec: ModelSpec) -> Path | None:
    """Return the path of the model's checkpoint in the cache, None if there is none, without network access.

    Raises:
        WeightsError: the file is damaged or cannot be read.
    """
    with _disk_errors(spec):
        entry = cache.find(spec)
        if entry.path is None and entry.damage:
            raise WeightsError(f"{entry.damage[0]}. `segany weights pull {spec.name}` replaces it.")
        return entry.path


def remove_weights(spec: ModelSpec) -> int:
    """Delete all cached files of a model, including partial downloads. Returns the number of bytes freed.

    Raises:
        WeightsError: the files cannot be deleted.
    """
    with _disk_errors(spec):
        if not cache.weights_directory(spec).is_dir():
            return 0
        with _locked(spec, None):
            return cache.clear(spec)


def weights_status() -> list[WeightsStatus]:
    """Return the cache status of every registered model, in the order of the registry.

    Raises:
        WeightsError: a file in the cache cannot be read.
    """
    statuses = []
    for spec in MODELS.values():
        with _disk_errors(spec):
            entry = cache.find(spec)
            size = entry.path.stat().st_size if entry.path else 0
        statuses.append(WeightsStatus(spec, entry.path, size, entry.damage))
    return statuses


def _locked(spec: ModelSpec, progress: ProgressCallback | None) -> AbstractContextManager[None]:
    cache.weights_directory(spec).mkdir(parents=True, exist_ok=True)
    return cache.locked(cache.weights_directory(spec), f"fetching {spec.name}", progress)


def _fetch(spec: ModelSpec, damage: Sequence[str], progress: ProgressCallback | None) -> Path:
    # Importing the HTTP client takes 0.1 s, which is not needed if the weights are cached.
    from segany.hub.fetch import SourceUnavailable
    from segany.hub.sources import fetch_from

    reasons = list(damage)
    for source in spec.sources:
        try:
            path = fetch_from(source, spec, progress)
        except SourceUnavailable as reason:
            _logger.info("%s is not available from %s: %s", spec.name, source, reason)
            reasons.append(f"{source}: {reason}")
        else:
            cache.discard_parts(spec)
            return path
    raise WeightsError(
        f"The weights of {spec.name!r} could not be fetched from any source." + _listed(reasons) + f"\n{_by_hand(spec)}"
    )


def is_offline() -> bool:
    """Tell whether SEGANY_OFFLINE disables the network."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in _OFF


def _by_hand(spec: ModelSpec) -> str:
    """Return instructions for placing a checkpoint by hand."""
    places: dict[str, list[str]] = {}
    for source in spec.sources:
        digest = f" (sha256 {source.sha256})" if source.sha256 else ""
        places.setdefault(f"{cache.checkpoint_path(spec, source)}{digest}", []).append(str(source))
    return "Or place a file by hand, exactly here; it is then checked and used without the network:" + _listed(
        [f"{place}, from {' or '.join(origins)}" for place, origins in places.items()]
    )


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"\n  - {line}" for line in lines)


@contextmanager
def _disk_errors(spec: ModelSpec) -> Iterator[None]:
    """Convert errors of the disk to a `WeightsError` with the path and advice."""
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        where = error.filename or cache.weights_directory(spec)
        advice = cache.DISK_ADVICE.get(error.errno or 0, f"{error.strerror or error}. Put that right")
        raise WeightsError(
            f"The weights of {spec.name!r} cannot be read or written at {where}. "
            f"{advice}, or set {cache.CACHE_VARIABLE} to another directory."
        ) from error
