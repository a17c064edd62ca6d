"""The condition for CPU forms, and linear layers with the faster of PyTorch's CPU kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segany.nn.replaced import is_unmodified

CACHE_BUDGET = 1024 * 1024
"""Most elements of an intermediate tensor that fits the cache (4 MB in float32).

Larger intermediates are computed in chunks on a CPU. Besides memory traffic this avoids page faults: the allocator
returns large blocks to the system, and faulting them in again costs more than the computation.
"""

_ONEDNN_MIN_SIZE = 20480
"""Fewest elements of an input for which PyTorch dispatches a convolution to oneDNN."""


def fast_cpu(x: Tensor) -> bool:
    """Tell whether the CPU form runs: on a CPU, without gradients, tracing and autocast.

    The forms assume that results have the dtype of their inputs, which is not so under autocast.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    plain = torch.is_grad_enabled() or traced or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and not plain


def fast_form(module: nn.Module, x: Tensor) -> bool:
    """Tell whether the CPU form of a module runs: as `fast_cpu`, and its layers are neither replaced nor hooked."""
    return fast_cpu(x) and is_unmodified(module)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.linear` with the faster of PyTorch's two CPU kernels.

    In float32, PyTorch dispatches linear layers to MKL and 1x1 convolutions to oneDNN. MKL has half the speed of oneDNN
    on CPUs that are not from Intel (210 against 480 GFLOP/s on two Zen 5 cores). The linear layer is therefore computed
    as a 1x1 convolution over the rows, which needs no copy in channels-last memory format.

    Args:
        x: [..., C_in].
        weight: [C_out, C_in].
        bias: [C_out].
    """
    has_onednn = x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if x.numel() <= _ONEDNN_MIN_SIZE or not has_onednn or not fast_cpu(x):
        return F.linear(x, weight, bias)
    rows = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, C_in, rows, 1]
    # With one thread, PyTorch does not dispatch 1x1 convolutions to oneDNN unless they are dilated. Dilation does not
    # change the result of a 1x1 convolution.
    out = F.conv2d(rows, weight[:, :, None, None], bias, dilation=(1, 2))
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight' + bias, [P, T, C] and [P, M, C] to [P, T, M], by `linear`. A batch axis of 1 is broadcast."""
    if not fast_cpu(x):
        product = x @ weight.transpose(-1, -2)
        return product if bias is None else product + bias
    if len(x) == len(weight) == 1:
        return linear(x[0], weight[0], bias)[None]
    count = max(len(x), len(weight))
    pairs = zip(x.expand(count, -1, -1), weight.expand(count, -1, -1), strict=True)
    return torch.stack([linear(*pair, bias) for pair in pairs])
