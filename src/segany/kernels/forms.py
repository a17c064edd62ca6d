"""The table of forms: for which plain module which form runs on a CPU."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from segany.kernels import decoder, encoders, layers, memory

Module = TypeVar("Module", bound=nn.Module)

FORMS: dict[type[nn.Module], type[nn.Module]] = {
    form.__bases__[-1]: form for module in (layers, encoders, decoder, memory) for form in module.FORMS
}
"""Plain module to form. Subclasses of a plain module have none but their own."""


def optimize(model: Module) -> Module:
    """Give the modules of a model their forms for CPU inference, in place. Returns the model.

    Parameters, names and gradients stay as they are: a model may be trained, saved and copied as before.
    """
    for module in model.modules():
        form = FORMS.get(type(module))
        if form is not None:
            module.__class__ = form
    return model
