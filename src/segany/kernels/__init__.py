"""Optimized forms of modules for CPU inference: the same function with another order of operations.

A form is a subclass of a plain module with the same parameters. `optimize` installs the forms in a model, which
`segany.load` does for models on a CPU. A form calls the plain module if gradients are enabled, the model is traced,
compiled or exported, autocast is enabled, or the model is not on a CPU; see `compute.fast_cpu`. Tests check that both
give the same outputs.
"""

from segany.kernels.forms import optimize

__all__ = ["optimize"]
