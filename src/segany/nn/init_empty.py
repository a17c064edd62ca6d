"""Construction of modules on the meta device, without allocating or initializing weights."""

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
    """Skips the random initialization of weights.

    On the meta device it has no effect, but the first call takes 0.8 s and 60 MB: PyTorch imports its Python
    reference implementations, and SymPy with them.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _RANDOM_FILLS:  # `torch.nn.init` passes the tensor as a keyword
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def init_empty_weights() -> Iterator[None]:
    """Put parameters and buffers of modules that are built in the `with` block on the meta device."""
    with torch.device("meta"), _NoRandomFills():
        yield
