"""One HTTP download: resumed where it broke, retried, and checked against its sha256."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from segany.core.errors import WeightsError
from segany.core.files import sha256_of
from segany.core.progress import ProgressCallback, report
from segany.hub.cache import CACHE_VARIABLE

ATTEMPTS = 3
"""How often a transfer is tried in a row without getting any further."""

BACKOFF_SECONDS = 0.5
"""Pause before the second attempt; it doubles for each one after."""

_TIMEOUT = httpx.Timeout(30, connect=5)  # seconds; the first is for each read, not for the whole file
_UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceUnavailable(Exception):  # noqa: N818 - not an error yet: the next source is tried
    """A source could not deliver the file; the message says why."""


class _Interrupted(Exception):  # noqa: N818 - handled by trying again
    """A transfer broke in a way that may not happen again."""


def download(
    url: str,
    part: Path,
    sha256: str | None,
    progress: ProgressCallback | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Bring the content of `url` into `part`, which may hold the beginning of it already.

    Args:
        url: where to get it. Redirects are followed.
        part: the file to write. It stays when the transfer breaks, so that a later call resumes it.
        sha256: what the content must have. Without it nothing is resumed: only a digest proves that
            the halves of a file belong together (and so there is no need of ETag or If-Range).
        progress: told the bytes so far and in total.
        headers: sent with the request, but not to another host that it is redirected to.

    Returns:
        The sha256 of the content.

    Raises:
        SourceUnavailable: the server cannot be reached, does not have it, or sends something else.
        WeightsError: the disk is too small.
    """
    asked = {**(headers or {}), "Accept-Encoding": "identity"}
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=asked) as client:
        if sha256 is None:
            part.unlink(missing_ok=True)
        resumed = _size(part) > 0
        _fill(client, url, part, progress, may_resume=sha256 is not None)
        digest = sha256_of(part)
        if resumed and digest != sha256:  # the beginning may be at fault, left by another version of the file
            part.unlink()
            _fill(client, url, part, progress, may_resume=True)
            digest = sha256_of(part)
    if sha256 is not None and digest != sha256:
        size = _size(part)
        part.unlink()
        raise SourceUnavailable(f"what arrived ({size} bytes) has sha256 {digest}, expected {sha256}")
    return digest


def require_space(directory: Path, needed: int) -> None:
    """Raise `WeightsError` unless the disk of `directory` has room for `needed` more bytes."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise WeightsError(
            f"Not enough disk space in {directory}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free. "
            f"Free some, or set {CACHE_VARIABLE} to a directory on another disk."
        )


def _fill(client: httpx.Client, url: str, part: Path, progress: ProgressCallback | None, *, may_resume: bool) -> None:
    """Transfer until the server says that is all. Attempts that get further than any before are free.

    A server that cannot be connected to is not tried again before it has sent anything, so that without a network
    the next source is reached at once.
    """
    failures, began = 0, _size(part)
    furthest = began
    while True:
        try:
            return _transfer(client, url, part, progress)
        except (httpx.TransportError, _Interrupted) as error:
            failures = 0 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            is_unreachable = isinstance(error, _UNREACHABLE) and furthest == began
            if failures >= ATTEMPTS or is_unreachable:
                raise SourceUnavailable(str(error) or type(error).__name__) from error
            if not may_resume:
                part.unlink(missing_ok=True)
            time.sleep(BACKOFF_SECONDS * 2 ** max(failures - 1, 0))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceUnavailable(str(error) or type(error).__name__) from error


def _transfer(client: httpx.Client, url: str, part: Path, progress: ProgressCallback | None) -> None:
    done = _size(part)
    headers = {"Range": f"bytes={done}-"} if done else {}
    with client.stream("GET", url, headers=headers) as response:
        status = response.status_code
        if done and status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is whole already, or too long: its digest tells
        if status in _TRANSIENT_STATUS:
            raise _Interrupted(f"HTTP {status} {response.reason_phrase}")
        if status == httpx.codes.OK:
            done = 0  # no Range was asked for, or the server ignored it
        elif status != httpx.codes.PARTIAL_CONTENT:
            raise SourceUnavailable(f"HTTP {status} {response.reason_phrase}")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _Interrupted("the server sent another range than it was asked for")
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        if total is not None:
            require_space(part.parent, total - done)
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_raw():  # as it comes: no byte is lost when it breaks
                file.write(chunk)
                done += len(chunk)
                report(progress, part.stem, done, total, "bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
