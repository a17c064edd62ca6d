"""Overrides of the fields of frozen configs by name, such as `loop.lr=1e-4`."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from segany.core.errors import ConfigError
from segany.train.field_docs import FieldDoc, field_docs

T = TypeVar("T")

NONE = ("none", "None", "null")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def override(config: T, settings: Iterable[str]) -> T:
    """A copy of a frozen config with other values in some fields.

    Args:
        config: the config, which may hold nested configs.
        settings: `name=value` each, with dots in the name of a field of a nested config. Values of a tuple are
            separated by commas, and `none` is None.

    Raises:
        ConfigError: a field does not exist, or a value is out of range or not of the type of its field.
    """
    known = {doc.name: doc for doc in field_docs(config)}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, such as loop.lr=1e-4, got {setting!r}.")
        if name not in known:
            raise ConfigError(f"There is no field {name!r}. {_nearest(name, known)}")
        changes[name] = _parse(text.strip(), known[name])
    changed: T = _replace(config, changes)
    return changed


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    last = {full.rpartition(".")[2]: full for full in names}
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near += [last[short] for short in difflib.get_close_matches(name.rpartition(".")[2], last, n=2, cutoff=0.7)]
    near = list(dict.fromkeys(near))[:3]
    return f"Did you mean {' or '.join(near)}?" if near else f"The fields: {', '.join(names)}."


def _replace(config: Any, changes: dict[str, Any]) -> Any:
    """Apply all changes in one `dataclasses.replace`, so that checks across fields see the new values only."""
    own = {name: value for name, value in changes.items() if "." not in name}
    for first in dict.fromkeys(name.partition(".")[0] for name in changes if "." in name):
        inner = {name.partition(".")[2]: value for name, value in changes.items() if name.partition(".")[0] == first}
        own[first] = _replace(getattr(config, first), inner)
    return dataclasses.replace(config, **own)


def _parse(text: str, field: FieldDoc) -> Any:
    kinds = _alternatives(field.type)
    if type(None) in kinds and text in NONE:
        return None
    for kind in kinds:
        try:
            return _parse_as(text, kind)
        except ValueError:
            continue
    raise ConfigError(f"{field.name} takes {describe_type(field.type)}, got {text!r}.")


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _parse_as(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() in _YES + _NO:
            return text.lower() in _YES
    elif kind in (int, float, str):
        return kind(text.replace("_", "") if kind is int else text)
    elif typing.get_origin(kind) is Literal:
        for value in typing.get_args(kind):
            if text == str(value):
                return value
    elif typing.get_origin(kind) is tuple:
        return _parse_tuple(text, typing.get_args(kind))
    raise ValueError(text)


def _parse_tuple(text: str, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    pieces = [piece.strip() for piece in text.strip("()[] ").split(",") if piece.strip()]
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(pieces)
    return tuple(_parse_as(piece, kind) for piece, kind in zip(pieces, kinds, strict=True))


def describe_type(kind: Any) -> str:
    """A description of the values that a field takes, for error messages."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "none"}
    if kind in names:
        return names[kind]
    alternatives = _alternatives(kind)
    if len(alternatives) > 1:
        return " or ".join(describe_type(one) for one in alternatives)
    if typing.get_origin(kind) is Literal:
        return " or ".join(str(value) for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        many = f"{len(kinds)} values" if kinds[-1] is not ... else "any number of values"
        return f"{many} with commas between, each {describe_type(kinds[0])}"
    return getattr(kind, "__name__", str(kind))
