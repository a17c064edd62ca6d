"""Functions and transforms of the official package, which are those of `segment_anything`."""
