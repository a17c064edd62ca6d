from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from segany.core.errors import DataError
from segany.core.zip_files import checked_members


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [info.filename for info in checked_members(archive, path, "a.zip")]


def make(path: Path, data: bytes, name: str = "a.json", mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, data)
    return path


def test_files_and_folders_pass_whatever_their_names(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip", bytes(1 << 20), "../a.json", stat.S_IFREG | 0o644)
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("folder")
    assert names(path) == ["../a.json", "folder/"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(DataError, match="is a link or a device"):
        names(make(tmp_path / "a.zip", b"/etc/passwd", mode=kind | 0o777))


def test_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would become 30,000,000 bytes"):
        names(make(tmp_path / "a.zip", bytes(30_000_000)))


def test_encrypted_and_overlapping_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "a.zip", b"{}").read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "encrypted.zip").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        names(tmp_path / "encrypted.zip")
    place = data.find(b"PK\x01\x02")
    data[place + 8] &= 0xFE
    data[place + 20 : place + 24] = (1000).to_bytes(4, "little")  # its size in the archive
    (tmp_path / "overlap.zip").write_bytes(data)
    with pytest.raises(DataError, match="overlap"):
        names(tmp_path / "overlap.zip")
