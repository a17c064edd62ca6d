"""Runs an unchanged program with the drop-in modules: `python -m segany.compat script.py [arguments]`."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from segany.compat.finder import install

_USAGE = """usage: python -m segany.compat script.py [arguments]
       python -m segany.compat -m module [arguments]

Runs a program in which segment_anything, mobile_sam and sam2 are those of segany."""


def main() -> None:
    """Run the program that the command line names, as `python` would."""
    arguments = sys.argv[1:]
    is_module = arguments[:1] == ["-m"]
    rest = arguments[1:] if is_module else arguments
    if not rest or rest[0] in ("-h", "--help"):
        sys.exit(_USAGE)
    # As the command `segany`: PyTorch's threads wait by spinning, which takes the cores from other processes.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    install()
    sys.argv = rest
    if is_module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    script = Path(rest[0])
    if not script.is_file():
        sys.exit(f"There is no script {script}. {_USAGE}")
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
