"""The command `segany`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from segany.cli import weights
from segany.cli.auto import auto
from segany.cli.evaluate import evaluate_command
from segany.cli.export import export
from segany.cli.models import models
from segany.cli.segment import EPILOG, segment
from segany.cli.track import EPILOG as TRACK_EPILOG
from segany.cli.track import track
from segany.cli.train import EPILOG as TRAIN_EPILOG
from segany.cli.train import train
from segany.core.errors import SeganyError
from segany.core.version import __version__

USER_ERROR = 2
"""Exit code for what the user can put right, as for a wrong option."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

STDOUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF, errno.EPIPE}
"""What a full disk or a closed pipe does to standard output. Errors of other files name them, or are typed."""


class _Group(TyperGroup):
    """Turns errors into a line for people and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SeganyError as error:
            line = Text.assemble(("error: ", "bold red"), str(error))
            Console(stderr=True, soft_wrap=True, highlight=False).print(line)
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    help="Segment anything in images and video: from a click, a box or a rough mask, or everything at once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # what is not a SeganyError is a bug, and wants its plain traceback
)
app.command(epilog=EPILOG)(segment)
app.command()(auto)
app.command(epilog=TRACK_EPILOG)(track)
app.command(epilog=TRAIN_EPILOG)(train)
app.command()(export)
app.command("evaluate")(evaluate_command)
app.command()(models)
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself; each acts in its callback."""


def main() -> None:
    """Run the command line: the entry point of the installed `segany`."""
    # PyTorch's threads wait for each other by spinning. Where other processes want the cores too, that makes
    # an image take ten times as long; spinning less costs a few percent. It is read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files hold more than some terminals can show
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in STDOUT_ERRORS:
            raise
        print(f"error: standard output could not be written: {error.strerror}.", file=sys.stderr)
        with contextlib.suppress(OSError):  # or Python would try to write the rest at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(USER_ERROR)
