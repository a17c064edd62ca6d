"""The command `segany`: its subcommands, and how errors become messages and exit codes."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from segany.cli import INTERRUPTED, USER_ERROR, engine, interrupt_code, weights
from segany.cli.auto import auto
from segany.cli.evaluate import evaluate_command
from segany.cli.export import export
from segany.cli.models import models
from segany.cli.segment import EPILOG, segment
from segany.cli.serve import serve
from segany.cli.track import EPILOG as TRACK_EPILOG
from segany.cli.track import track
from segany.cli.train import EPILOG as TRAIN_EPILOG
from segany.cli.train import train
from segany.core.errors import CanceledError, SeganyError
from segany.core.version import __version__


class _Warnings(logging.Handler):
    """Prints warnings of the library on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        line = Text.assemble(("warning: ", "bold yellow"), record.getMessage())
        Console(stderr=True, soft_wrap=True, highlight=False).print(line)


class _Group(TyperGroup):
    """Turns errors into a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CanceledError:
            raise typer.Exit(INTERRUPTED) from None
        except SeganyError as error:
            line = Text.assemble(("error: ", "bold red"), str(error))
            Console(stderr=True, soft_wrap=True, highlight=False).print(line)
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(interrupt_code(interrupt)) from None


app = typer.Typer(
    cls=_Group,
    help="Segment objects in images and video from points, boxes and masks, or everything with automatic masks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # anything but a SeganyError is a bug, and needs its plain traceback
)
app.command(epilog=EPILOG)(segment)
app.command()(auto)
app.command(epilog=TRACK_EPILOG)(track)
app.command(epilog=TRAIN_EPILOG)(train)
app.command()(export)
app.command("evaluate")(evaluate_command)
app.command()(serve)
app.command()(models)
app.add_typer(engine.app, name="engine")
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself; each one acts in its callback."""
    logger = logging.getLogger("segany")
    if not any(isinstance(handler, _Warnings) for handler in logger.handlers):
        logger.addHandler(_Warnings(logging.WARNING))
