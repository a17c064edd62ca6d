"""Errors of the drop-in modules: those of segany that are also what the official code raises in the same place."""

from __future__ import annotations

from segany.core.errors import SeganyError


class ArgumentError(SeganyError, AssertionError):
    """An argument is not what the call takes; the official code fails an assertion."""


class StateError(SeganyError, RuntimeError):
    """A call came too early, such as a prediction before `set_image`."""


def require(condition: bool, message: str) -> None:
    """Raise `ArgumentError` with `message` unless `condition` holds."""
    if not condition:
        raise ArgumentError(message)
