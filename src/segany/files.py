"""Writing files so that they are whole or not there."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from segany.errors import OutputError

_WHAT_TO_DO = {
    errno.ENOSPC: "there is no space left on the device. Free some, or choose another folder.",
    errno.EDQUOT: "the disk quota is used up. Free some space, or choose another folder.",
    errno.EACCES: "you have no permission to write there. Choose another folder.",
    errno.EPERM: "you have no permission to write there. Choose another folder.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.ENOTDIR: "a part of the path is a file and not a folder. Choose another folder.",
    errno.EEXIST: "a file is where the folder should be. Choose another folder.",
    errno.EISDIR: "there is a folder of that name. Move it away, or choose another folder.",
    errno.ENAMETOOLONG: "the name is too long.",
}


def write_file(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name beside its place and rename it once it is complete.

    Missing folders are made. Whatever happens, an interrupt included, `path` holds all of `data` or
    what it held before, and no temporary file is left.

    Raises:
        OutputError: there is no space, no permission, or no such place; the message names the path.
    """
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"  # short, so that long names still fit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # some file systems report a full disk only here
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = _WHAT_TO_DO.get(error.errno or 0, f"{error.strerror or error}.")
        raise OutputError(f"{path} could not be written: {reason}") from error
    return path
