"""The data engine: a dataset and the model that annotates it grow together (Segment Anything, section 4)."""
