"""Tells whether the layers of a module are still its own, so that a faster order of operations is the same function.

Regrouped attention and folded convolutions use the weights of layers without calling them, and blocks run on strips of
the feature map. Programs replace layers, such as by low-rank adapters, and register hooks on them: then every layer is
called, once.
"""

from __future__ import annotations

from torch import nn

_WEIGHTED_LAYERS = frozenset({nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm, nn.BatchNorm2d})
_OWN_PACKAGES = ("segany.", "torch.nn.modules.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(*layers: nn.Module) -> bool:
    """Tell whether using the weights of these layers is the same as calling them.

    They are then layers of PyTorch without hooks. A fast form of such a layer names it as its `plain_layer`.
    """
    return all(
        getattr(type(layer), "plain_layer", type(layer)) in _WEIGHTED_LAYERS and not is_hooked(layer)
        for layer in layers
    )


def is_unmodified(module: nn.Module) -> bool:
    """Tell whether a module consists of modules of segany and PyTorch only, without hooks."""
    return all(type(part).__module__.startswith(_OWN_PACKAGES) and not is_hooked(part) for part in module.modules())


def is_hooked(module: nn.Module) -> bool:
    """Tell whether a module has hooks, or another `forward` than its class."""
    state = module.__dict__
    return "forward" in state or any(state[name] for name in _HOOKS)
