"""The weights of a model by name: from the cache, or from the first of its sources that delivers."""

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
    """What the cache has of one model.

    Attributes:
        spec: the model.
        path: its checkpoint, intact; None where there is none.
        size_bytes: size of that file; 0 where there is none.
        damage: a sentence for each file that is there but is not what was published.
    """

    spec: ModelSpec
    path: Path | None
    size_bytes: int
    damage: tuple[str, ...]


def fetch_weights(spec: ModelSpec, *, progress: ProgressCallback | None = None) -> Path:
    """The path of the model's checkpoint, fetched first where the cache has none.

    A checkpoint in the cache is used without touching the network; its sha256 is checked again when
    its size or modification time changed. Otherwise the sources are tried in order. Processes that
    want the same weights at once fetch them once.

    Args:
        spec: the model, a row of `segany.models.registry.MODELS`.
        progress: told of the bytes of each download, and that another process is fetching the same.

    Raises:
        WeightsError: no source could deliver, the network is forbidden by SEGANY_OFFLINE, or the
            cache cannot be written. The message says how to place the file by hand.
    """
    with _disk_errors(spec):
        entry = cache.find(spec)  # without the lock, so that a read-only cache will do
        if entry.path is not None:
            return entry.path
        if is_offline():
            raise WeightsError(
                f"The weights of {spec.name!r} are not in the cache, and {OFFLINE_VARIABLE} forbids the network."
                + _listed(entry.damage)
                + f"\nUnset {OFFLINE_VARIABLE} to fetch them. {_by_hand(spec)}"
            )
        with _locked(spec, progress):
            entry = cache.find(spec)  # another process may have fetched them while we waited
            return entry.path or _fetch(spec, entry.damage, progress)


def cached_path(spec: ModelSpec) -> Path | None:
    """The path of the model's checkpoint in the cache, None where there is none. Never fetches.

    Raises:
        WeightsError: there is a file, but it is damaged or cannot be read.
    """
    with _disk_errors(spec):
        entry = cache.find(spec)
        if entry.path is None and entry.damage:
            raise WeightsError(f"{entry.damage[0]}. `segany weights pull {spec.name}` replaces it.")
        return entry.path


def remove_weights(spec: ModelSpec) -> int:
    """Delete all that the cache has of a model, broken downloads too. Returns the bytes freed.

    Raises:
        WeightsError: the files cannot be deleted.
    """
    with _disk_errors(spec):
        if not cache.weights_directory(spec).is_dir():
            return 0
        with _locked(spec, None):
            return cache.clear(spec)


def weights_status() -> list[WeightsStatus]:
    """What the cache has of every model, in the order of the table of models.

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
    # Importing an HTTP client takes 0.1 s, which whoever has the weights already need not spend.
    from segany.hub.fetch import SourceUnavailable
    from segany.hub.sources import fetch_from

    reasons = list(damage)
    for source in spec.sources:
        try:
            path = fetch_from(source, spec, progress)
        except SourceUnavailable as reason:
            _logger.info("%s is not to be had from %s: %s", spec.name, source, reason)
            reasons.append(f"{source}: {reason}")
        else:
            cache.discard_parts(spec)
            return path
    raise WeightsError(
        f"The weights of {spec.name!r} could not be fetched from any source." + _listed(reasons) + f"\n{_by_hand(spec)}"
    )


def is_offline() -> bool:
    """Whether the network is forbidden."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in _OFF


def _by_hand(spec: ModelSpec) -> str:
    """How to place a file where the network does not reach."""
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
    """Say in a `WeightsError` what the disk refused, where, and what to do."""
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
