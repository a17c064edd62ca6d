"""Drop-in module for the official package `sam2`."""
