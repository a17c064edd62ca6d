"""The modules of SAM 2 with the signatures of the official code."""
