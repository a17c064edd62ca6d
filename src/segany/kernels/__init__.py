"""Forms of the models' modules for CPU inference: the same arithmetic in another order, several times as fast.

`optimize` puts them into a model, which `segany.load` does with those on a CPU. A form is a subclass of a plain module
with the same parameters. It runs the plain one whenever gradients are on, the model is traced, compiled or exported,
computes in mixed precision, or is not on a CPU; see `compute.fast_cpu`. Tests hold both equal.
"""

from segany.kernels.forms import optimize

__all__ = ["optimize"]
