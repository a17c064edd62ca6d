"""Building a module without spending memory or time on values that are about to be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_RANDOM_FILLS = frozenset({init.kaiming_uniform_, init.normal_, init.uniform_, Tensor.normal_, Tensor.uniform_})


class _NoRandomFills(TorchFunctionMode):
    """Leaves tensors as they are where a layer would fill them with random numbers.

    On the meta device there is nothing to fill, but trying costs 0.8 s and 60 MB the first time:
    PyTorch imports its Python reference implementations, and with them SymPy.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _RANDOM_FILLS:  # `torch.nn.init` passes its tensor by name
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def init_empty_weights() -> Iterator[None]:
    """Modules built inside have parameters and buffers on the meta device: names and shapes only."""
    with torch.device("meta"), _NoRandomFills():
        yield
