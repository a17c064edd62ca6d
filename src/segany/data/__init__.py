"""Annotated images: reading them from what datasets come in, and bringing them to the size of training."""
