"""Drop-in modules for programs written for the official packages `segment_anything`, `mobile_sam` and `sam2`.

from segany.compat.segment_anything import SamPredictor, sam_model_registry

They have the names, signatures and results of the official packages and run on segany's models. `install` makes
`import segment_anything` find them, for programs that are not to be changed; `python -m segany.compat script.py` runs
such a program.
"""

from segany.compat.finder import install

__all__ = ["install"]
