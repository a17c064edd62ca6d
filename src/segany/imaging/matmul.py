"""Products of matrices that are arrays.

Where PyTorch computes already, its threads do these as well: NumPy's would wait beside them, spinning, and
each would slow the other down. PyTorch is never imported for it.
"""

from __future__ import annotations

import sys

import numpy as np

from segany.core.arrays import FloatArray


def multiply(left: FloatArray, right: FloatArray) -> FloatArray:
    """left @ right, [m, k] by [k, n], float32."""
    torch = sys.modules.get("torch")
    if torch is None:
        return np.asarray(left @ right, dtype=np.float32)
    with torch.inference_mode():
        return np.asarray((torch.from_numpy(left) @ torch.from_numpy(right)).numpy())


def multiply_transposed(left: FloatArray, right: FloatArray) -> FloatArray:
    """left @ right', [m, k] by [n, k], float32."""
    torch = sys.modules.get("torch")
    if torch is None:
        return np.asarray(left @ right.T, dtype=np.float32)
    from segany.kernels.compute import linear

    with torch.inference_mode():
        return np.asarray(linear(torch.from_numpy(left), torch.from_numpy(right)).numpy())
