"""The command line: one thin file a command.

This module holds the entry point alone, and imports nothing that `import segany` does not.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType

USER_ERROR = 2
"""Exit code for errors of the user, such as a wrong option."""

STDOUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF, errno.EPIPE}
"""Errors of standard output on a full disk or a closed pipe. Errors of other files have a file name, or are typed."""


INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM ends a command as Ctrl-C does, and keeps finished results."""


def main() -> None:
    """Run the command line: the entry point of the installed `segany`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the end
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run()
    except KeyboardInterrupt as interrupt:  # during startup; later, the commands exit with the same codes
        sys.exit(interrupt_code(interrupt))
    except OSError as error:
        if error.filename is not None or error.errno not in STDOUT_ERRORS:
            raise
        print(f"error: standard output could not be written: {error.strerror}.", file=sys.stderr)
        with contextlib.suppress(OSError):  # or Python would try to write the rest at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(USER_ERROR)


def interrupt_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code after a signal."""
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise Terminated


def _run() -> None:
    try:
        from segany.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("rich", "typer"):
            raise
        print(f'error: The command line needs {error.name}. Install it: pip install "segany[cli]"', file=sys.stderr)
        sys.exit(USER_ERROR)
    # PyTorch's threads wait for each other by spinning. If other processes need the cores too, an image takes ten
    # times as long; spinning less costs a few percent. The variable is read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters of file names
    try:
        app()
    finally:
        sys.stdout.flush()
