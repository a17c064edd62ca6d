"""Imports of optional dependencies, with errors that name the command to install them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from segany.core.errors import MissingExtraError


def import_extra(module: str, what: str, extra: str) -> Any:
    """Import an optional dependency.

    Args:
        module: name of the module.
        what: beginning of the error message.
        extra: the extra of segany that installs the module.

    Raises:
        MissingExtraError: the module is not installed or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f'{what} ({error}). Install it with: pip install "segany[{extra}]"') from error


def import_av() -> Any:
    """Import PyAV, which reads and writes video files.

    Raises:
        MissingExtraError: it is not installed, or its shared libraries cannot be loaded.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            f'Video files and cameras need PyAV ({error}). Install it with: pip install "segany[video]". '
            "Folders of images and arrays work without it."
        ) from error


def require_torch() -> None:
    """Raise `MissingExtraError` if PyTorch is not installed. PyTorch is not imported."""
    try:
        is_there = importlib.util.find_spec("torch") is not None
    except ImportError:
        is_there = False
    if not is_there:
        raise MissingExtraError(
            'This needs PyTorch, which is not installed. Install it with: pip install "segany[torch]". '
            "Without it, exported models run: load the folder that segany export made elsewhere."
        )
