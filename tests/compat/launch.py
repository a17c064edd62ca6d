"""Runs an unmodified program with the official packages or the drop-in modules: `launch.py SIDE PROGRAM ...`.

SIDE is "official" or "segany", and PROGRAM is a script or `-m MODULE`. On both sides `torch.onnx.export` uses the
TorchScript exporter, which the programs were written for: with the newer default the official script fails. The
official MobileSAM is put into evaluation mode a second time, without which its masks are wrong: it caches attention
biases before it loads weights.
"""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any


def main() -> None:
    side, *program = sys.argv[1:]
    if side == "segany":
        import segany.compat

        segany.compat.install()
    else:
        evaluate_twice()
    import torch

    torch.onnx.export = partial(torch.onnx.export, dynamo=False)
    is_module = program[0] == "-m"
    sys.argv = program[1:] if is_module else program
    if is_module:
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program[0]).parent)
        runpy.run_path(program[0], run_name="__main__")


def evaluate_twice() -> None:
    import mobile_sam

    build = mobile_sam.sam_model_registry["vit_t"]

    def build_sam_vit_t(checkpoint: Any = None) -> Any:
        return build(checkpoint=checkpoint).eval()

    mobile_sam.sam_model_registry["vit_t"] = build_sam_vit_t


if __name__ == "__main__":
    main()
