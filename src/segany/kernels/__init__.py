"""Forms of the models' modules for CPU inference."""
