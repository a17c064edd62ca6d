"""Images in folders, in object stores and in tar shards, listed and read through fsspec.

A source is a path or a URL of any file system that fsspec knows (`s3://`, `gs://`, `https://`, `memory://`):

    a folder             all images in it, at any depth
    a pattern            photos/**/*.jpg, s3://bucket/2026/*.png
    an image             one image
    a .txt file          a URL or path in each line: relative ones are relative to the file
    a .tar file          a WebDataset shard, which is read from its beginning to its end
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import fsspec
from fsspec.utils import get_protocol

from segany.core.errors import DataError, ImageError, MissingExtraError, SeganyError
from segany.imaging.image_formats import readable_suffixes

MAX_IMAGE_BYTES = 1 << 30
"""Larger files are refused before they are read."""

SHARD_SUFFIXES = (".tar",)
LIST_SUFFIXES = (".txt",)
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True)
class ImageUrl:
    """An image to read.

    Attributes:
        url: its path or URL.
        version: changes when the file changes: its size with its ETag or modification time; empty where the storage
            tells neither.
        known_sha256: SHA-256 of the file whose result is there already; empty for none.
    """

    url: str
    version: str = ""
    known_sha256: str = ""

    @property
    def name(self) -> str:
        return self.url

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            ImageError: it cannot be read, or is larger than `MAX_IMAGE_BYTES`.
        """
        return read_url(self.url, ImageError, MAX_IMAGE_BYTES)


@dataclass(frozen=True)
class ImageBytes:
    """An image of a shard, read already: `url` is that of the shard, "#" and the name of the member."""

    url: str
    version: str
    known_sha256: str
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return self.url

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Shard:
    """A tar file of images.

    Attributes:
        url: its path or URL.
        version: as for `ImageUrl`.
        known: SHA-256 of the members whose results are there already, by their URLs.
    """

    url: str
    version: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

    def images(self) -> Iterator[ImageBytes]:
        """Read the images in the order of the file.

        Raises:
            DataError: the file cannot be read, or is no tar file.
        """
        suffixes = readable_suffixes()
        try:
            with fsspec.open(self.url, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    name = posixpath.basename(member.name)
                    if not member.isfile() or name.startswith(".") or Path(name).suffix.lower() not in suffixes:
                        continue
                    url = f"{self.url}#{member.name}"
                    if member.size > MAX_IMAGE_BYTES:
                        yield ImageBytes(url, self.version, "", b"")  # refused as no image, like any damaged member
                        continue
                    content = tar.extractfile(member)
                    yield ImageBytes(url, self.version, self.known.get(url, ""), content.read() if content else b"")
        except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
            raise DataError(f"{self.url} cannot be read as a tar file: {_reason(error)}") from error


Source: TypeAlias = "ImageUrl | Shard"


def list_sources(places: Iterable[str]) -> list[Source]:
    """List the images and shards of paths and URLs, each once, in order.

    Raises:
        DataError: a place does not exist, cannot be listed, or holds neither images nor shards.
    """
    found: dict[str, Source] = {}
    for place in places:
        listed = list(_list(place))
        if not listed:
            raise DataError(f"{place} holds neither images nor .tar shards.")
        for source in listed:
            found.setdefault(source.url, source)
    return list(found.values())


def read_url(url: str, error_type: type[SeganyError], max_bytes: int) -> bytes:
    """Read a file of at most `max_bytes` from any file system, or raise an `error_type` that names it."""
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read(max_bytes + 1)
    except Exception as error:  # each file system raises exceptions of its own
        raise error_type(f"{url} cannot be read: {_reason(error)}") from error
    if len(data) > max_bytes:
        raise error_type(f"{url} is larger than {max_bytes:,} bytes.")
    return bytes(data)


def is_url(place: str) -> bool:
    """Whether a place is a URL, not a path."""
    return "://" in place or "::" in place


def filesystem_of(url: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        DataError: fsspec does not know the protocol.
        MissingExtraError: a package for the protocol is not installed.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(f"{url} needs a package: {error}, with pip.") from error
    except Exception as error:
        raise DataError(f"{url} cannot be opened: {_reason(error)}") from error
    return filesystem, str(path)


def _list(place: str) -> Iterator[Source]:
    filesystem, path = filesystem_of(place)
    try:
        if any(char in path for char in "*?["):
            details = filesystem.glob(path, detail=True)
        else:
            info = filesystem.info(path)
            details = {path: info} if info["type"] == "file" else filesystem.find(path, detail=True)
    except Exception as error:
        raise DataError(f"{place} cannot be listed: {_reason(error)}") from error
    is_named = set(details) == {path}
    suffixes = readable_suffixes()
    for name in sorted(details):
        info = details[name]
        suffix = Path(name).suffix.lower()
        hidden = any(part.startswith(".") for part in name[len(path) :].split("/"))
        if info["type"] != "file" or (hidden and not is_named):
            continue
        url = _url(filesystem, name, place)
        if suffix in SHARD_SUFFIXES:
            yield Shard(url, _version(info))
        elif suffix in LIST_SUFFIXES and is_named:
            yield from _listed_in(url)
        elif suffix in suffixes or is_named:
            yield ImageUrl(url, _version(info))


def _listed_in(url: str) -> Iterator[Source]:
    """The places in the lines of a listing file. They are not looked up: there may be millions."""
    base = url.rsplit("/", 1)[0]
    text = read_url(url, DataError, MAX_IMAGE_BYTES)
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{url} is no list of URLs: it is no text in UTF-8.") from error
    for line in lines:
        place = line.strip()
        if place and not place.startswith("#"):
            target = place if is_url(place) or place.startswith("/") else f"{base}/{place}"
            yield Shard(target) if Path(target).suffix.lower() in SHARD_SUFFIXES else ImageUrl(target)


def _url(filesystem: Any, name: str, place: str) -> str:
    return name if get_protocol(place) == "file" else str(filesystem.unstrip_protocol(name))


def _version(info: Mapping[str, Any]) -> str:
    facts = [str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None]
    return hashlib.sha256(repr((info.get("size"), facts)).encode()).hexdigest()[:16] if facts else ""


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
