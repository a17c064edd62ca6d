"""Optional dependencies: importing them, or saying how to install them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from segany.core.errors import MissingExtraError


def import_extra(module: str, what: str, extra: str) -> Any:
    """An optional module.

    Args:
        module: its name.
        what: begins the message.
        extra: of segany, that installs it.

    Raises:
        MissingExtraError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f'{what} ({error}). Install it with: pip install "segany[{extra}]"') from error


def import_av() -> Any:
    """The module `av`, PyAV, which reads and writes video files.

    Raises:
        MissingExtraError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            f'Video files and cameras need PyAV ({error}). Install it with: pip install "segany[video]". '
            "Folders of images and arrays work without it."
        ) from error


def require_torch() -> None:
    """Raise `MissingExtraError` where PyTorch is not installed; it is not imported."""
    try:
        is_there = importlib.util.find_spec("torch") is not None
    except ImportError:
        is_there = False
    if not is_there:
        raise MissingExtraError(
            'This needs PyTorch, which is not installed. Install it with: pip install "segany[torch]". '
            "Without it, exported models run: load the folder that segany export made elsewhere."
        )
