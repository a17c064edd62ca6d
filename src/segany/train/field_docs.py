"""The fields of frozen configs, as their docstrings describe them: the one place where they are described."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldDoc:
    """A field of a config.

    Attributes:
        name: with dots where it is a field of a field.
        type: as it is written.
        value: it has.
        text: what its docstring says, on one line; empty where that says nothing.
    """

    name: str
    type: Any
    value: Any
    text: str


def field_docs(config: Any, prefix: str = "") -> Iterator[FieldDoc]:
    """The fields of a frozen config, in their order; those of configs within it under their own names."""
    kind = type(config)
    types, texts = typing.get_type_hints(kind), attribute_docs(kind)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_docs(value, f"{prefix}{field.name}.")
        else:
            yield FieldDoc(f"{prefix}{field.name}", types[field.name], value, texts.get(field.name, ""))


def attribute_docs(kind: type) -> dict[str, str]:
    """What the "Attributes:" sections of a class and its bases say of each field."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        document = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, section = document.partition("Attributes:\n")
        for entry in re.split(r"\n(?=    \w)", "\n" + section.split("\n\n")[0]):
            names, colon, text = entry.strip().partition(":")
            if colon and re.fullmatch(r"\w+(, \w+)*", names):
                texts |= {name: " ".join(text.split()) for name in names.split(", ")}
    return texts
