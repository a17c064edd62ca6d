"""Checks of zip archives, which may come from anybody, before any of their members is read."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from segany.core.errors import DataError

MAX_RATIO = 200
"""How many times as large as in the archive a member may be, beyond its first megabyte."""

FREE_BYTES = 1 << 20


def checked_members(archive: zipfile.ZipFile, path: Path, name: str) -> list[zipfile.ZipInfo]:
    """The members of an archive, if they are files and folders of sizes that can be read. Their names are not checked.

    Args:
        archive: the open archive.
        path: its file.
        name: what messages call it.

    Raises:
        DataError: a member is encrypted, a link or a device, or would become much larger than the archive; or members
            overlap, so that together they would.
    """
    members = archive.infolist()
    for info in members:
        what = f"{name}: {info.filename[:100]!r}"
        if info.flag_bits & 1:
            raise DataError(f"{what} is encrypted. Make an archive without a password.")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{what} is a link or a device. Put the files themselves in.")
        if info.file_size > MAX_RATIO * info.compress_size + FREE_BYTES:
            raise DataError(f"{what} would become {info.file_size:,} bytes. It is not unpacked.")
    if sum(info.compress_size for info in members) > path.stat().st_size:
        raise DataError(f"{name} is damaged: its members overlap.")
    return members
