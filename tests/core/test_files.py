"""write_file: whole or not at all, whatever happens."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from segany.core.errors import ImageError, OutputError
from segany.core.files import path_errors, remove_litter, replacing, replacing_folder, write_file


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    assert write_file(path, b"one") == path
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = write_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left.*choose another folder"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_failures_name_the_path_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, where: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[where], fail)
    with pytest.raises(OutputError, match=f"file could not be written: .*{message}"):
        write_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"after")
    assert list(tmp_path.iterdir()) == []


def test_impossible_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, message in [
        (tmp_path / "file" / "x", "a file is where the folder should be"),
        (tmp_path / "file" / "deeper" / "x", "a part of the path is a file"),
        (tmp_path / "folder", "there is a folder of that name"),
        (tmp_path / ("x" * 300), "name is too long"),
    ]:
        with pytest.raises(OutputError, match=message):
            write_file(path, b"data")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_pipes_and_devices_stay(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OutputError, match=r"could not be written: it is a device, pipe"):
            write_file(path, b"data")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failure", [PermissionError(13, "Permission denied"), RuntimeError("Symlink loop")])
def test_path_errors(failure: Exception) -> None:
    with (
        pytest.raises(ImageError, match=r"a\.png cannot be used: (Permission denied|Symlink loop)\. Check"),
        path_errors(Path("a.png"), ImageError),
    ):
        raise failure


def killed_while_writing(path: Path, code: str) -> None:
    """Run a program that is killed in the middle of writing."""
    program = (
        f"import os, signal, segany.core.files as files; from pathlib import Path; path = Path({str(path)!r})\n{code}"
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file"
    killed_while_writing(path, "with files.replacing(path) as t:\n t.write_text('half')\n os.kill(os.getpid(), 9)")
    assert len(list(tmp_path.iterdir())) == 1
    killed_while_writing(tmp_path / "folder", "with files.replacing_folder(path) as t:\n os.kill(os.getpid(), 9)")
    assert [entry.is_dir() for entry in tmp_path.iterdir()] == [True]
    subprocess.run([sys.executable, "-c", WRITE_ONE, str(tmp_path)], check=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


WRITE_ONE = """
import sys
from pathlib import Path
from segany.core.files import write_file
write_file(Path(sys.argv[1]) / "file", b"whole")
"""


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        subprocess.run([sys.executable, "-c", WRITE_ONE, str(tmp_path)], check=True)
        assert temporary.read_text() == "half"
    ours = tmp_path / ".segany-notes.tmp"  # of a name like ours, but not ours
    ours.write_text("mine")
    remove_litter(tmp_path)
    assert ours.exists()


def test_litter_of_other_machines_stays_for_a_day(tmp_path: Path) -> None:
    litter = tmp_path / ".segany-00000000-1-0123456789ab.tmp"
    litter.write_text("half")
    remove_litter(tmp_path)
    assert litter.exists()
    os.utime(litter, (0, 0))
    remove_litter(tmp_path)
    assert not litter.exists()


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "one").write_text("1")
    assert [path.name for path in folder.iterdir()] == ["one"]
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder):
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["one"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    with replacing_folder(folder) as temporary:
        (temporary / "three").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["three"]
