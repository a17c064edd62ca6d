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
        void: why it has no effect beside the values of other fields; empty where it has one.
    """

    name: str
    type: Any
    value: Any
    text: str
    void: str = ""


def field_docs(config: Any, prefix: str = "") -> Iterator[FieldDoc]:
    """The fields of a frozen config, in their order; those of configs within it under their own names.

    A config may say by a method `void_fields()` which of its fields have no effect, each with the reason.
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
