"""When the forms for CPU inference run, and which of PyTorch's kernels they choose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE_BUDGET = 1024 * 1024
"""Elements of an intermediate that is worth keeping in the cache (4 MB in float32).

Larger intermediates are made in pieces on a CPU. It is not the traffic alone: the C library hands
large blocks back to the system, and faulting them in again costs more than computing them.
"""

_ONEDNN_MIN_SIZE = 20480
"""PyTorch gives oneDNN no smaller convolution than this."""


def fast_cpu(x: Tensor) -> bool:
    """Whether the form for CPU inference runs: on a CPU, without gradients, not being traced, in one precision.

    Under autocast the type of a result is not that of what it is made of, on which these forms rely.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    plain = torch.is_grad_enabled() or traced or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and not plain


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by the faster of PyTorch's two CPU kernels.

    In float32 PyTorch sends linear layers to MKL, which runs at half the speed of oneDNN on CPUs of
    other makers (210 against 480 GFLOP/s on two Zen 5 cores), and 1x1 convolutions to oneDNN. So a
    1x1 convolution over the rows it is; in a channels-last layout that moves no data.

    Args:
        x: [..., C_in].
        weight: [C_out, C_in].
        bias: [C_out].
    """
    has_onednn = x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if x.numel() <= _ONEDNN_MIN_SIZE or not has_onednn or not fast_cpu(x):
        return F.linear(x, weight, bias)
    rows = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, C_in, rows, 1]
    # On one thread PyTorch keeps plain 1x1 convolutions to itself. Dilation sends them to oneDNN, and means nothing.
    out = F.conv2d(rows, weight[:, :, None, None], bias, dilation=(1, 2))
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight' + bias, [P, T, C] by [P, M, C] to [P, T, M]; leading axes of one are shared. See `linear`."""
    if not fast_cpu(x):
        product = x @ weight.transpose(-1, -2)
        return product if bias is None else product + bias
    if len(x) == len(weight) == 1:
        return linear(x[0], weight[0], bias)[None]
    count = max(len(x), len(weight))
    pairs = zip(x.expand(count, -1, -1), weight.expand(count, -1, -1), strict=True)
    return torch.stack([linear(*pair, bias) for pair in pairs])
