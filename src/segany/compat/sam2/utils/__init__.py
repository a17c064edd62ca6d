"""Functions and transforms of the official package."""
