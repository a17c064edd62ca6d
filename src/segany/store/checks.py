"""Checks of values from outside, before they reach the database: SQLite would take some that PostgreSQL refuses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from segany.core.errors import DataError


def refuse(message: str) -> DataError:
    """The error for a value that cannot be stored."""
    return DataError(message)


def shown(value: Any) -> str:
    """A value from outside, for a message."""
    try:
        return repr(value if isinstance(value, (str, int, float, bool)) else type(value).__name__)[:60]
    except ValueError:  # an integer of thousands of digits
        return "a number of very many digits"


def check_text(value: Any, what: str, least: int, most: int) -> None:
    """Raise `DataError` unless `value` is text of so many characters that every database can hold."""
    if not isinstance(value, str):
        raise refuse(f"{what} must be text, got {type(value).__name__}.")
    if not least <= len(value) <= most:
        raise refuse(f"{what} must have {least} to {most} characters, got {len(value)}.")
    if "\0" in value:
        raise refuse(f"{what} holds a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse(f"{what} is no valid Unicode: it holds half of a surrogate pair.") from None


def check_id(value: Any, what: str) -> None:
    """Raise `DataError` unless `value` is a UUID as text, in lower case with hyphens."""
    if not is_id(value):
        raise refuse(f"{what} must be a UUID in lower case, got {shown(value)}.")


def is_id(value: Any) -> bool:
    """Whether `value` is a UUID as text, in lower case with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def check_number(value: Any, what: str, low: float, high: float, *, whole: bool = True) -> None:
    """Raise `DataError` unless `value` is a number in low..high."""
    types = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise refuse(f"{what} must be {kind} in {low:g}..{high:g}, got {shown(value)}.")


def check_choice(value: Any, choices: Sequence[str], what: str) -> None:
    """Raise `DataError` unless `value` is one of some."""
    if value not in choices:
        raise refuse(f"{what} must be one of {', '.join(choices)}; got {shown(value)}.")


def check_json(value: Any, what: str, most: int) -> None:
    """Raise `DataError` unless `value` is an object of JSON values that takes at most so many characters."""
    try:
        text = json.dumps(value, allow_nan=False)
        is_object = isinstance(json.loads(text), dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise refuse(f"{what} cannot be written as JSON: {error}.") from error
    if not is_object:
        raise refuse(f"{what} must be an object of JSON, got {type(value).__name__}.")
    if len(text) > most:
        raise refuse(f"{what} is too large: {len(text):,} characters, at most {most:,}.")
