"""PyAV, the optional library that reads and writes video files."""

from __future__ import annotations

import importlib
from typing import Any

from segany.core.errors import MissingExtraError


def import_av() -> Any:
    """The module `av`.

    Raises:
        MissingExtraError: PyAV is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            f'Video files and cameras need PyAV ({error}). Install it with: pip install "segany[video]". '
            "Folders of images and arrays work without it."
        ) from error
