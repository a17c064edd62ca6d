"""The CPU forms of common layers, the registry of all forms, and their installation in a model."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from segany.kernels import decoder, encoders, memory
from segany.kernels.compute import fast_form, linear
from segany.kernels.strips import by_rows
from segany.nn.layers import MLP, FeedForward

Module = TypeVar("Module", bound=nn.Module)


class FastLinear(nn.Linear):
    """A linear layer with the faster of two CPU kernels; see `linear`."""

    plain_layer = nn.Linear

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Linear gives it)
        return linear(input, self.weight, self.bias)


class FastFeedForward(FeedForward):
    """Processes rows in chunks that fit the cache."""

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(super().forward, x, self.lin1.out_features) if fast_form(self, x) else super().forward(x)


class FastMLP(MLP):
    """Processes rows in chunks that fit the cache."""

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(super().forward, x, self.hidden) if fast_form(self, x) else super().forward(x)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    form.__bases__[-1]: form
    for forms in ((FastLinear, FastFeedForward, FastMLP), encoders.FORMS, decoder.FORMS, memory.FORMS)
    for form in forms
}
"""Plain module class to CPU form. Only the exact class is replaced, not its subclasses."""


def optimize(model: Module) -> Module:
    """Replace modules of a model by their forms for CPU inference, in place. Returns the model.

    Parameters, their names and gradients do not change: the model can still be trained, saved and copied.
    """
    for module in model.modules():
        form = FORMS.get(type(module))
        if form is not None:
            module.__class__ = form
    return model
