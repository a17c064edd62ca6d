"""Descriptions of the fields of frozen configs, read from the "Attributes:" sections of their docstrings."""

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
        name: name of the field, with dots for a field of a nested config.
        type: type annotation.
        value: current value.
        text: description from the docstring, on one line; empty if there is none.
        void: reason why the values of other fields leave it without effect; empty if it has an effect.
    """

    name: str
    type: Any
    value: Any
    text: str
    void: str = ""


def field_docs(config: Any, prefix: str = "") -> Iterator[FieldDoc]:
    """Yield the fields of a frozen config in their order, and in the place of a nested config its fields.

    A config can have a method `void_fields()`, which returns the fields without effect, each with the reason.
    """
    kind = type(config)
    types, texts = typing.get_type_hints(kind), attribute_docs(kind)
    void = config.void_fields() if hasattr(config, "void_fields") else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_docs(value, f"{prefix}{field.name}.")
        else:
            texts_of = texts.get(field.name, ""), void.get(field.name, "")
            yield FieldDoc(f"{prefix}{field.name}", types[field.name], value, *texts_of)


def attribute_docs(kind: type) -> dict[str, str]:
    """The description of each field in the "Attributes:" sections of a class and its base classes."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        document = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, section = document.partition("Attributes:\n")
        for entry in re.split(r"\n(?=    \w)", "\n" + section.split("\n\n")[0]):
            names, colon, text = entry.strip().partition(":")
            if colon and re.fullmatch(r"\w+(, \w+)*", names):
                texts |= {name: " ".join(text.split()) for name in names.split(", ")}
    return texts
