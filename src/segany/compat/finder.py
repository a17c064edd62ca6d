"""A finder that lets the names of the official packages be imported from the drop-in modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from segany.core.errors import ConfigError

PACKAGES = ("segment_anything", "mobile_sam", "sam2")
"""The official packages that have a drop-in module here."""

_PREFIX = "segany.compat."


class _SameModule(Loader):
    """Loads an official name as the drop-in module itself, so that both names are one module."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        module = importlib.import_module(self._target)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has replaced it


class OfficialNames(MetaPathFinder):
    """Finds `segment_anything`, `mobile_sam`, `sam2` and their submodules among the drop-in modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a drop-in module; None for all other names. Nothing is imported yet."""
        del path, target
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        ours = importlib.util.find_spec(_PREFIX + fullname)
        if ours is None:
            return None
        spec = ModuleSpec(fullname, _SameModule(ours.name), origin=ours.origin)
        spec.submodule_search_locations = ours.submodule_search_locations
        return spec


def install() -> None:
    """Let `import segment_anything`, `mobile_sam` and `sam2` find the drop-in modules from now on, in this process.

    Nothing is imported by this call. Official packages that are installed are no longer imported. Calling it again does
    nothing.

    Raises:
        ConfigError: one of the official packages has been imported already, so that the program would use both.
    """
    if any(isinstance(finder, OfficialNames) for finder in sys.meta_path):
        return
    for name in PACKAGES:
        if (module := sys.modules.get(name)) is not None:
            where = getattr(module, "__file__", None) or "an unknown place"
            raise ConfigError(
                f"{name} has been imported already, from {where}. Call segany.compat.install() before anything imports "
                f"it, or run the whole program with python -m segany.compat."
            )
    sys.meta_path.insert(0, OfficialNames())
