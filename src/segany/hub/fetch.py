"""HTTP downloads with resume, retries and verification of the SHA-256."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx

from segany.core.errors import WeightsError
from segany.core.files import sha256_of
from segany.core.progress import ProgressCallback, report
from segany.hub.cache import CACHE_VARIABLE

ATTEMPTS = 3
"""Consecutive attempts without progress after which a transfer fails."""

BACKOFF_SECONDS = 0.5
"""Delay before the second attempt; it doubles with each further attempt."""

MAX_BYTES = 16 * 2**30
"""Largest download if its size is not known; the largest checkpoints take 2.5 GB."""

_CHECK_SPACE_BYTES = 1 << 26
"""How many bytes are written between looks at the free space."""

_SPARE_BYTES = 1 << 26
"""Free space that a download of unknown size leaves on the disk."""

_TIMEOUT = httpx.Timeout(30, connect=5)  # seconds; the first is for each read, not for the whole file
_UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceUnavailable(Exception):  # noqa: N818 - not an error yet: the next source is tried
    """A source could not deliver the file; the message says why."""


class _Interrupted(Exception):  # noqa: N818 - handled by trying again
    """A transfer failed with a transient error."""


def download(
    url: str,
    part: Path,
    sha256: str | None,
    progress: ProgressCallback | None = None,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Download a URL to a file, and resume a partial download.

    Args:
        url: the URL. Redirects are followed.
        part: the file to write. It is kept if the transfer fails, so that a later call resumes it.
        sha256: expected SHA-256. Without it a download is not resumed: only a digest proves that both parts belong to
            the same file (so that ETag and If-Range are not needed).
        progress: receives the bytes so far and in total.
        headers: request headers, which are not sent to other hosts after a redirect.
        max_bytes: largest size of the file. More than that is not written, whatever the server claims.

    Returns:
        The SHA-256 of the file.

    Raises:
        SourceUnavailable: the server cannot be reached, does not have the file, or sends another or a larger file.
        WeightsError: the disk is too small.
    """
    fill = partial(_fill, url=url, part=part, progress=progress, max_bytes=max_bytes)
    asked = {**(headers or {}), "Accept-Encoding": "identity"}
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=asked) as client:
        if sha256 is None:
            part.unlink(missing_ok=True)
        resumed = _size(part) > 0
        fill(client, may_resume=sha256 is not None)
        digest = sha256_of(part)
        if resumed and digest != sha256:  # the first part may be from another version of the file
            part.unlink()
            fill(client, may_resume=True)
            digest = sha256_of(part)
    if sha256 is not None and digest != sha256:
        size = _size(part)
        part.unlink()
        raise SourceUnavailable(f"what arrived ({size} bytes) has sha256 {digest}, expected {sha256}")
    return digest


def require_space(directory: Path, needed: int) -> None:
    """Raise `WeightsError` unless the disk of `directory` has `needed` bytes of free space."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise WeightsError(
            f"Not enough disk space in {directory}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free. "
            f"Free some, or set {CACHE_VARIABLE} to a directory on another disk."
        )


def _fill(
    client: httpx.Client,
    *,
    url: str,
    part: Path,
    progress: ProgressCallback | None,
    max_bytes: int,
    may_resume: bool,
) -> None:
    """Transfer the rest of the file, with retries. Attempts that make progress do not count.

    If the first connection fails there is no retry, so that the next source is tried at once.
    """
    failures, began = 0, _size(part)
    furthest = began
    while True:
        try:
            return _transfer(client, url, part, progress, max_bytes)
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


def _transfer(client: httpx.Client, url: str, part: Path, progress: ProgressCallback | None, max_bytes: int) -> None:
    done = _size(part)
    headers = {"Range": f"bytes={done}-"} if done else {}
    with client.stream("GET", url, headers=headers) as response:
        status = response.status_code
        if done and status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the partial file is complete or too long; the digest decides
        if status in _TRANSIENT_STATUS:
            raise _Interrupted(f"HTTP {status} {response.reason_phrase}")
        if status == httpx.codes.OK:
            done = 0  # no range was requested, or the server ignored it
        elif status != httpx.codes.PARTIAL_CONTENT:
            raise SourceUnavailable(f"HTTP {status} {response.reason_phrase}")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _Interrupted("the server sent another range than it was asked for")
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        if total is not None:
            _check_length(total, max_bytes, part)
            require_space(part.parent, total - done)
        space_until = done
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_raw():  # unbuffered, so that all received bytes are written if it fails
                # Without a length, or with a wrong one, only what arrives tells the size.
                _check_length(done + len(chunk), max_bytes, part)
                if total is None and done + len(chunk) > space_until:
                    require_space(part.parent, len(chunk) + _CHECK_SPACE_BYTES + _SPARE_BYTES)
                    space_until = done + len(chunk) + _CHECK_SPACE_BYTES
                file.write(chunk)
                done += len(chunk)
                report(progress, part.stem, done, total, "bytes")


def _check_length(size: int, max_bytes: int, part: Path) -> None:
    """Remove the partial file and raise `SourceUnavailable` if the server sends more than the file can have."""
    if size > max_bytes:
        part.unlink(missing_ok=True)
        raise SourceUnavailable(f"the server sends at least {size:,} bytes, more than the {max_bytes:,} of the file")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
