"""Builds the page of `segany serve` into the package where it is not built yet.

An sdist and a wheel contain the built page, so installing them needs no Node.js. Installing from git needs it for the
page alone: without it everything else is installed, and a warning says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIRE_VARIABLE = "SEGANY_REQUIRE_PAGE"
"""Set for releases: a build without the page fails then."""


class PageBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Runs Vite in `web/` before files are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        root = Path(self.root)
        index, web = root / "src" / "segany" / "server" / "static" / "index.html", root / "web"
        if version == "editable" or _is_current(index, web):
            return
        problem = _build(web)
        if problem and not index.exists():
            if os.environ.get(REQUIRE_VARIABLE):
                raise RuntimeError(problem)
            self.app.display_warning(f"{problem} `segany serve` will have no page; everything else works.")


def _is_current(index: Path, web: Path) -> bool:
    if not index.exists():
        return False
    sources = [path for folder in ("app", "src") for path in (web / folder).rglob("*") if path.is_file()]
    return all(path.stat().st_mtime <= index.stat().st_mtime for path in sources)


def _build(web: Path) -> str | None:
    """Build the page; what went wrong, if anything."""
    npm = shutil.which("npm")
    if not (web / "package.json").exists():
        return "The sources of the page are not here."
    if npm is None:
        return "The page was not built: npm is not installed. Install Node.js 20 or newer and build again."
    try:
        for command in (["ci", "--silent"], ["run", "--silent", "build:app"]):
            subprocess.run([npm, *command], cwd=web, check=True)
    except subprocess.CalledProcessError as error:
        return f"The page was not built: {' '.join(map(str, error.cmd))} failed."
    return None
